"""Metrics that several papers share, each tested against an independent implementation."""

from readtrack.scores.basic import accuracy, rank_correlation
from readtrack.scores.frechet import frechet_distance, gaussian_frechet_distance
from readtrack.scores.sound import (
    log_spectral_distance,
    periodicity,
)
from readtrack.scores.text import bleu, edit_distance, error_rate
from readtrack.scores.vision import (
    Detected,
    average_precision,
    average_recall,
    box_iou,
    detected_boxes,
    detected_masks,
    mask_iou,
    mean_iou,
)

__all__ = [
    "Detected",
    "accuracy",
    "average_precision",
    "average_recall",
    "bleu",
    "box_iou",
    "detected_boxes",
    "detected_masks",
    "edit_distance",
    "error_rate",
    "frechet_distance",
    "gaussian_frechet_distance",
    "log_spectral_distance",
    "mask_iou",
    "mean_iou",
    "periodicity",
    "rank_correlation",
]
