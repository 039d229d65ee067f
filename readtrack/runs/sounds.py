"""Tensors as WAV files."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def save_wav(path: Path, samples: torch.Tensor, rate: int) -> None:
    """Write (samples,) or (channels, samples) values in [-1, 1], one or two channels, as 16-bit PCM.

    `rate` is in samples per second. Values outside the range are clamped. Raises ValueError for another
    shape, for no samples, for a value that is NaN or infinite, and for a rate below 1.
    """
    sound = samples.detach().float().cpu()
    if sound.ndim == 1:
        sound = sound.unsqueeze(0)
    if sound.ndim != 2 or sound.shape[0] not in (1, 2) or sound.shape[1] == 0:
        raise ValueError(
            f"a sound is (samples,) or (channels, samples) of 1 or 2 channels, not {tuple(samples.shape)}"
        )
    if not sound.isfinite().all():
        raise ValueError("a sound must be finite, but these values contain NaN or infinity")
    if rate < 1:
        raise ValueError(f"rate={rate}: must be 1 sample per second or more")
    levels = (sound.clamp(-1, 1) * 32767).round().numpy().astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(levels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(levels.T.tobytes())  # interleaved channels
