"""Short-time spectra and log-mel spectrograms of waves.

Time comes before frequency: a spectrogram is (..., frames, bins), a mel spectrogram (..., frames, bands), and
`.mT` has the shape (..., bands, frames) for convolutions over time. There are samples // hop frames, and
frame t is centred at sample t x hop, unless a function documents otherwise. Every function keeps the wave's
dtype and device and is differentiable.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Complex, Float
from torch import Tensor

Scale = Literal["slaney", "htk"]
Wave = Float[Tensor, "*batch samples"]
Spectrum = Complex[Tensor, "*batch frames bins"]
Magnitude = Float[Tensor, "*batch frames bins"]
Mel = Float[Tensor, "*batch frames bands"]


def tone(frequencies: Float[Tensor, "*batch tones"], samples: int, rate: int) -> Wave:
    """The sum of sines of these frequencies (Hz), each of amplitude 1 / tones, starting at phase 0."""
    seconds = torch.arange(samples, dtype=frequencies.dtype, device=frequencies.device) / rate
    return (2 * math.pi * frequencies.unsqueeze(-1) * seconds).sin().mean(-2)


def stft(wave: Wave, *, window: int, hop: int) -> Spectrum:
    """Short-time Fourier transform: periodic Hann window, zeros beyond both ends, window // 2 + 1 bins.

    Raises ValueError for fewer samples than one hop.
    """
    if wave.shape[-1] < hop:
        raise ValueError(f"{wave.shape[-1]} samples are less than one frame of {hop}")
    spectrum = torch.stft(
        wave.reshape(-1, wave.shape[-1]),
        window,
        hop,
        window=torch.hann_window(window, dtype=wave.dtype, device=wave.device),
        pad_mode="constant",
        return_complex=True,
    )
    frames = wave.shape[-1] // hop
    return spectrum[..., :frames].mT.reshape(*wave.shape[:-1], frames, window // 2 + 1)


def istft(spectrum: Spectrum, *, window: int, hop: int) -> Wave:
    """The wave of frames x hop samples whose `stft` is closest to `spectrum` (least squares).

    This is the inverse of `stft` for a wave of whole frames. Raises ValueError if the windows do not overlap
    by half.
    """
    frames, bins = spectrum.shape[-2:]
    if 2 * hop > window:
        raise ValueError(f"windows of {window} samples every {hop} do not overlap by half")
    wave = torch.istft(
        spectrum.reshape(-1, frames, bins).mT,
        window,
        hop,
        window=torch.hann_window(window, dtype=spectrum.real.dtype, device=spectrum.device),
        length=frames * hop,
    )
    return wave.reshape(*spectrum.shape[:-2], frames * hop)


def hertz_to_mel(hertz: Float[Tensor, "*any"], scale: Scale) -> Float[Tensor, "*any"]:
    """Frequencies on the mel scale.

    "htk": 2595 log10(1 + f / 700). "slaney" (1998, "Auditory Toolbox"): 3 f / 200 up to 1 kHz, above it
    15 + 27 log(f / 1000) / log 6.4.
    """
    if scale == "htk":
        return 2595 * (1 + hertz / 700).log10()
    above = 15 + (hertz.clamp(min=1000) / 1000).log() * (27 / math.log(6.4))
    return torch.where(hertz < 1000, hertz * (3 / 200), above)


def mel_to_hertz(mel: Float[Tensor, "*any"], scale: Scale) -> Float[Tensor, "*any"]:
    """The inverse of `hertz_to_mel`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = 1000 * ((mel.clamp(min=15) - 15) * (math.log(6.4) / 27)).exp()
    return torch.where(mel < 15, mel * (200 / 3), above)


def mel_filters(
    bands: int,
    *,
    window: int,
    rate: int,
    low: float = 0.0,
    high: float | None = None,
    scale: Scale,
    area: bool,
) -> Float[Tensor, "bins bands"]:
    """Triangles over the window // 2 + 1 bins, evenly spaced in mel from `low` to `high` (or rate / 2) Hz.

    Each triangle rises from the centre of the band below to its own centre and falls to the centre of the
    band above. Each has height 1, or 2 / (width in Hz) with `area`. The result is float64. Raises ValueError
    if a band would contain no bin.
    """
    return _mel_filters(bands, window, rate, low, rate / 2 if high is None else high, scale, area).clone()


@lru_cache(maxsize=32)
def _mel_filters(
    bands: int, window: int, rate: int, low: float, high: float, scale: Scale, area: bool
) -> Float[Tensor, "bins bands"]:
    ends = hertz_to_mel(torch.tensor([low, high], dtype=torch.float64), scale)
    corners = mel_to_hertz(torch.linspace(ends[0], ends[1], bands + 2, dtype=torch.float64), scale)
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64).unsqueeze(1)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    if (filters.amax(0) == 0).any():
        raise ValueError(
            f"{bands} bands from {low:g} to {high:g} Hz: a band contains none of the {len(bins)} bins"
        )
    return filters * (2 / (right - left)) if area else filters


def log_mel_whisper(
    wave: Wave, *, rate: int = 16_000, window: int = 400, hop: int = 160, bands: int = 80
) -> Mel:
    """Whisper's features (Radford et al. 2022, arXiv 2212.04356, section 2.2, and the released code).

    The power in Slaney's bands of equal area over 0 to rate / 2 is converted by log10, clamped from below at
    8 less than each wave's largest value, and scaled by (x + 4) / 4. The wave is reflected at its ends, and
    the last frame is dropped. The largest value is taken over the whole row, including padding added before
    (as in Whisper).
    """
    filters = mel_filters(bands, window=window, rate=rate, scale="slaney", area=True)
    spectrum = torch.stft(
        wave.reshape(-1, wave.shape[-1]),
        window,
        hop,
        window=torch.hann_window(window, dtype=wave.dtype, device=wave.device),
        return_complex=True,
    )[..., :-1]
    power = spectrum.abs().square().mT
    logs = (power @ filters.to(power)).clamp(min=1e-10).log10()
    logs = torch.maximum(logs, logs.amax((-2, -1), keepdim=True) - 8)
    return ((logs + 4) / 4).reshape(*wave.shape[:-1], *logs.shape[-2:])


def mel_to_magnitude(mel: Mel, filters: Float[Tensor, "bins bands"], *, rounds: int = 50) -> Magnitude:
    """Magnitudes >= 0 whose mel spectrogram is close to `mel` (magnitudes in bands, not their logarithm).

    Solves least squares under X >= 0 by multiplicative updates (Lee and Seung 2001). Starting from X = mel @
    filters^T selects a solution that is smooth within each band. Bins outside all bands stay 0.
    """
    bank = filters.to(mel)
    target = mel @ bank.mT
    gram = bank @ bank.mT
    magnitude = target.clone()
    for _ in range(rounds):
        magnitude = magnitude * target / (magnitude @ gram).clamp(min=1e-12)
    return magnitude


def griffin_lim(
    magnitude: Magnitude,
    *,
    window: int,
    hop: int,
    rounds: int = 32,
    momentum: float = 0.99,
    generator: torch.Generator | None = None,
) -> Wave:
    """A wave of frames x hop samples whose `stft` has approximately these magnitudes.

    Starts from random phases, and repeats: compute the closest wave, keep its phases, restore the magnitudes.
    With `momentum=0` this is Griffin and Lim 1984 (doi 10.1109/TASSP.1984.1164317), whose error never
    increases; with momentum it is the fast variant of Perraudin, Balazs and Sondergaard 2013 (doi
    10.1109/WASPAA.2013.6701851, algorithm 2).
    """
    turns = torch.rand(magnitude.shape, generator=generator).to(magnitude)
    phases = torch.polar(torch.ones_like(magnitude), 2 * math.pi * turns)
    before = torch.zeros_like(phases)
    for _ in range(rounds):
        rebuilt = stft(istft(magnitude * phases, window=window, hop=hop), window=window, hop=hop)
        ahead = rebuilt + momentum * (rebuilt - before)
        phases = ahead / ahead.abs().clamp(min=1e-12)
        before = rebuilt
    return istft(magnitude * phases, window=window, hop=hop)
