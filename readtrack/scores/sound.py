"""Metrics for sound: log-spectral distance in decibels, and periodicity of a voice."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack.data import audio

_DECIBELS = 20 / math.log(10)  # decibels in one neper


def log_spectral_distance(
    reference: Float[Tensor, " samples"],
    wave: Float[Tensor, " samples"],
    *,
    window: int,
    hop: int,
    floor: float = 1e-3,
) -> float:
    """Root mean square difference in dB of short-time magnitudes (at least `floor`), averaged over frames.

    Gray and Markel 1976, doi 10.1109/TASSP.1976.1162849. Judge a vocoder at window sizes that its loss does
    not use.
    """
    wanted, found = (
        audio.stft(sound, window=window, hop=hop).abs().clamp(min=floor).log() for sound in (reference, wave)
    )
    return float(_DECIBELS * (found - wanted).square().mean(-1).sqrt().mean())


def periodicity(
    wave: Float[Tensor, " samples"], pitch: Float[Tensor, " frames"], *, rate: int, window: int = 400
) -> float:
    """Normalised autocorrelation at the known pitch, averaged over voiced frames: 1 for a periodic signal.

    pitch is in Hz, 0 where unvoiced; frame t is centred at sample t x samples / frames. The autocorrelation
    of a windowed frame is divided by that of the window (Boersma 1993); for a voice in white noise it is the
    voice's share of the power. The lag need not be an integer. A silent frame counts as 0. `window` is in
    samples and should contain three periods. Raises ValueError if no frame is voiced.
    """
    wave, pitch = wave.detach().cpu().double(), pitch.cpu().double()
    voiced = (pitch > 0).nonzero().flatten()
    if len(voiced) == 0:
        raise ValueError("no frame is voiced")
    hop = len(wave) // len(pitch)
    size = 1 << (2 * window).bit_length()
    padded = torch.nn.functional.pad(wave, (window // 2, window))
    hann = torch.hann_window(window, dtype=torch.float64)
    frames = padded.unfold(0, window, 1)[voiced * hop]
    frames = (frames - frames.mean(-1, keepdim=True)) * hann
    lag = rate / pitch[voiced].unsqueeze(-1)
    ratio = _autocorrelation(frames, lag, size) / _autocorrelation(hann.unsqueeze(0), lag, size)
    return float(ratio.mean())


def _autocorrelation(
    frames: Float[Tensor, "some window"], lag: Float[Tensor, "frames 1"], size: int
) -> Float[Tensor, " frames"]:
    """Autocorrelation at a (fractional) lag in samples, relative to lag 0; 0 for a frame of zeros."""
    power: Tensor = torch.fft.rfft(frames, size).abs().square()
    power[:, 1:-1] *= 2  # the negative frequencies
    turns = torch.arange(size // 2 + 1) * lag / size
    return (power * (2 * math.pi * turns).cos()).sum(-1) / power.sum(-1).clamp(min=1e-20)
