"""Metrics for detection and segmentation: intersection over union, COCO's average precision.

Boxes are x1, y1, x2, y2, half-open, as in `readtrack.data.scenes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

# 0.5, 0.55, ..., 0.95 with the rounding of NumPy's linspace: COCO's ninth threshold is slightly below 0.9.
THRESHOLDS = (*(0.5 + i * ((0.95 - 0.5) / 9) for i in range(9)), 0.95)
ANY_AREA, SMALL = (0.0, math.inf), (0.0, 32.0**2)  # in pixels
MEDIUM, LARGE = (32.0**2, 96.0**2), (96.0**2, math.inf)
_RECALLS = 101  # 0, 0.01, ..., 1


def box_iou(
    a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"], crowd: Bool[Tensor, " m"] | None = None
) -> Float[Tensor, "n m"]:
    """Intersection over union of all pairs of boxes; 0 if both have no area.

    If b is a crowd (one outline for many objects), the intersection is divided by the area of a, as in COCO.
    """
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    return _over_union((high - low).clamp(min=0).prod(-1), _areas(a), _areas(b), crowd)


def mask_iou(
    a: Bool[Tensor, "n height width"],
    b: Bool[Tensor, "m height width"],
    crowd: Bool[Tensor, " m"] | None = None,
) -> Float[Tensor, "n m"]:
    """Intersection over union of all pairs of masks, in float64. Otherwise like `box_iou`."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return _over_union(a @ b.T, a.sum(1), b.sum(1), crowd)


def mean_iou(found: Int64[Tensor, "*size"], truth: Int64[Tensor, "*size"], classes: int) -> float:
    """Intersection over union of each class's pixels over all images, averaged over the occurring classes.

    A class of `range(classes)` occurs if a predicted or true pixel has it. Raises ValueError without pixels.
    """
    table = torch.bincount(truth.flatten() * classes + found.flatten(), minlength=classes**2)
    table = table.view(classes, classes).double()
    union = table.sum(0) + table.sum(1) - table.diag()
    if not union.any():
        raise ValueError("there are no pixels to score")
    return float((table.diag() / union)[union > 0].mean())


@dataclass(frozen=True)
class Detected:
    """The detections in one image and its true objects."""

    overlap: Float[Tensor, "found objects"]  # `box_iou` or `mask_iou`
    scores: Float[Tensor, " found"]
    labels: Int64[Tensor, " found"]
    areas: Float[Tensor, " found"]
    true_labels: Int64[Tensor, " objects"]
    true_areas: Float[Tensor, " objects"]
    crowd: Bool[Tensor, " objects"]  # detections of these are ignored


def detected_boxes(
    boxes: Float[Tensor, "found 4"],
    scores: Float[Tensor, " found"],
    labels: Int64[Tensor, " found"],
    true_boxes: Float[Tensor, "objects 4"],
    true_labels: Int64[Tensor, " objects"],
    *,
    true_areas: Float[Tensor, " objects"] | None = None,
    crowd: Bool[Tensor, " objects"] | None = None,
) -> Detected:
    """One image's detected boxes. `true_areas` default to the boxes' areas; COCO uses the masks' areas."""
    boxes, true_boxes = boxes.double(), true_boxes.double()
    crowd = torch.zeros_like(true_labels).bool() if crowd is None else crowd
    areas = _areas(true_boxes) if true_areas is None else true_areas.double()
    overlap = box_iou(boxes, true_boxes, crowd)
    return Detected(overlap, scores, labels, _areas(boxes), true_labels, areas, crowd)


def detected_masks(
    masks: Bool[Tensor, "found height width"],
    scores: Float[Tensor, " found"],
    labels: Int64[Tensor, " found"],
    true_masks: Bool[Tensor, "objects height width"],
    true_labels: Int64[Tensor, " objects"],
    *,
    crowd: Bool[Tensor, " objects"] | None = None,
) -> Detected:
    """One image's detected masks, compared with the true masks."""
    crowd = torch.zeros_like(true_labels).bool() if crowd is None else crowd
    areas, true_areas = (some.flatten(1).sum(1).double() for some in (masks, true_masks))
    overlap = mask_iou(masks, true_masks, crowd)
    return Detected(overlap, scores, labels, areas, true_labels, true_areas, crowd)


def average_precision(
    images: Sequence[Detected],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    areas: tuple[float, float] = ANY_AREA,
    most: int = 100,
) -> float:
    """COCO's average precision, 0 to 1: the mean over IoU thresholds, 101 recalls, and classes.

    `thresholds=(0.5,)` is AP50. Counts only objects with an area within `areas`, and the `most`
    highest-scored detections of each class in an image. Classes without such objects are left out; nan if
    none is left.
    """
    precision, _ = precision_and_recall(images, thresholds, areas, most)
    return float(precision.nanmean())


def average_recall(
    images: Sequence[Detected],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    areas: tuple[float, float] = ANY_AREA,
    most: int = 100,
) -> float:
    """COCO's average recall: the share of detected objects, averaged over thresholds and classes."""
    _, recall = precision_and_recall(images, thresholds, areas, most)
    return float(recall.nanmean())


def precision_and_recall(
    images: Sequence[Detected], thresholds: Sequence[float], areas: tuple[float, float], most: int
) -> tuple[Float[Tensor, "thresholds 101 classes"], Float[Tensor, "thresholds classes"]]:
    """Precision at recalls of 0, 0.01, ... 1, and the highest recall; nan for classes without an object.

    Classes are those of the objects, sorted. The precision at a recall is the best at that recall or beyond.
    COCO's evaluation defines both (Lin et al. 2014, arXiv 1405.0312, and cocodataset.org).
    """
    classes = sorted({label for image in images for label in image.true_labels.tolist()})
    precision = torch.full((len(thresholds), _RECALLS, len(classes)), math.nan, dtype=torch.float64)
    recall = torch.full((len(thresholds), len(classes)), math.nan, dtype=torch.float64)
    for c, label in enumerate(classes):
        shown = [image for image in images if label in image.labels or label in image.true_labels]
        matched = [_match(image, label, thresholds, areas, most) for image in shown]
        *detections, numbers = zip(*matched, strict=True)
        scores, right, counted = (torch.cat(field, -1) for field in detections)
        if not (objects := sum(numbers)):
            continue
        order = scores.argsort(descending=True, stable=True)
        right, counted = right[:, order], counted[:, order]
        hits, alarms = (right & counted).cumsum(1).double(), (~right & counted).cumsum(1).double()
        reached = hits / objects
        precise = hits / (hits + alarms).clamp(min=1)
        best = precise.flip(1).cummax(1).values.flip(1)
        # If a recall is never reached, the index is one past the end, where the precision is 0.
        best = functional.pad(best, (0, 1))
        # Rounded like NumPy's linspace, so that a recall of 57 in 100 reaches the level 0.57 as in COCO's
        # code.
        levels = (0.01 * torch.arange(_RECALLS, dtype=torch.float64)).expand(len(thresholds), -1)
        place = torch.searchsorted(reached, levels.contiguous())
        precision[:, :, c] = best.gather(1, place)
        recall[:, c] = reached[:, -1] if reached.shape[1] else 0
    return precision, recall


def _match(
    image: Detected, label: int, thresholds: Sequence[float], areas: tuple[float, float], most: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """A class's detections: scores (n), which are correct, which count (thresholds, n), and the number of
    objects.

    In the order of their scores, each detection is matched to the free object with the largest overlap. A
    crowd or an object of another size is matched only if no proper object is free, and that detection does
    not count. A crowd stays free.
    """
    mine = (image.labels == label).nonzero().flatten()
    mine = mine[image.scores[mine].argsort(descending=True, stable=True)][:most]
    theirs = (image.true_labels == label).nonzero().flatten()
    ignored = image.crowd[theirs] | _outside(image.true_areas[theirs], areas)
    theirs, ignored = theirs[ignored.int().argsort(stable=True)], ignored.sort().values
    overlap = image.overlap[mine][:, theirs].tolist()
    skip, crowd = ignored.tolist(), image.crowd[theirs].tolist()

    right = torch.zeros(len(thresholds), len(mine), dtype=torch.bool)
    counted = (~_outside(image.areas[mine], areas)).expand(len(thresholds), -1).clone()
    for t, threshold in enumerate(thresholds):
        taken: set[int] = set()
        for d, row in enumerate(overlap):
            best, chosen = min(threshold, 1 - 1e-10), -1
            for g, shared in enumerate(row):
                if g in taken and not crowd[g]:
                    continue
                if chosen >= 0 and skip[g] and not skip[chosen]:
                    break
                if shared >= best:
                    best, chosen = shared, g
            if chosen >= 0:
                taken.add(chosen)
                right[t, d], counted[t, d] = True, not skip[chosen]
    return image.scores[mine], right, counted, int((~ignored).sum())


def _areas(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def _outside(areas: Float[Tensor, " n"], limits: tuple[float, float]) -> Bool[Tensor, " n"]:
    return (areas < limits[0]) | (areas > limits[1])


def _over_union(
    shared: Float[Tensor, "n m"],
    a: Float[Tensor, " n"],
    b: Float[Tensor, " m"],
    crowd: Bool[Tensor, " m"] | None,
) -> Float[Tensor, "n m"]:
    union = a[:, None] + b - shared
    if crowd is not None:
        union = torch.where(crowd, a[:, None], union)
    return shared / union.masked_fill(union == 0, 1)
