"""Recorded words and sentences, at the sampling rate and loudness of the synthetic voice."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from readtrack.data import speech

LOUDNESS = 0.1  # root mean square of a recorded sound


class Recordings(NamedTuple):
    """Zero-padded waves at 8 kHz, their lengths in samples, and their labels."""

    waves: Float[Tensor, "n samples"]
    lengths: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"]


def normalised(part: tuple[Tensor, ...], rate: int) -> Recordings:
    """Recordings from a part of `run.source("speech")`: (waves (n, samples), labels (n,)) at `rate` Hz."""
    waves, labels = part
    size = waves.shape[1] * speech.RATE // rate
    waves = F.interpolate(waves[:, None], size, mode="area")[:, 0]
    last = (waves.abs() > 1e-3).long() * torch.arange(1, size + 1)
    lengths = last.amax(1).clamp(min=min(size, speech.RATE // 2))
    waves *= LOUDNESS / (waves.square().sum(1) / lengths).sqrt().clamp(min=1e-4)[:, None]
    return Recordings(waves, lengths, labels)
