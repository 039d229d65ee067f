"""Short-time spectra and mel spectrograms, each against an independent implementation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor
from torch.testing import assert_close
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

with install_import_hook("readtrack.data.audio", "beartype.beartype"):
    from readtrack.data import audio


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def transform(wave: Tensor, window: int, hop: int) -> Tensor:
    """The definition: each frame is cut out, windowed, and transformed by a sum over its samples."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(wave.numpy(), window // 2)
    frames = [padded[start : start + window] * hann for start in range(0, len(wave) - hop + 1, hop)]
    turns = np.exp(-2j * np.pi * np.outer(np.arange(window), np.arange(window // 2 + 1)) / window)
    return torch.from_numpy(np.stack(frames) @ turns)


@pytest.mark.parametrize(("samples", "window", "hop"), [(800, 256, 80), (850, 256, 80), (64, 16, 4)])
def test_stft_is_the_sum_by_its_definition(samples: int, window: int, hop: int) -> None:
    wave = noise(samples, dtype=torch.float64)
    ours = audio.stft(wave, window=window, hop=hop)
    assert ours.shape == (samples // hop, window // 2 + 1)
    assert_close(ours, transform(wave, window, hop), rtol=0, atol=1e-10)


def test_istft_undoes_stft_and_rows_are_independent() -> None:
    waves = noise(2, 3, 800, dtype=torch.float64)
    spectrum = audio.stft(waves, window=256, hop=80)
    assert spectrum.shape == (2, 3, 10, 129)
    assert_close(audio.istft(spectrum, window=256, hop=80), waves, rtol=0, atol=1e-10)
    assert_close(spectrum[1, 2], audio.stft(waves[1, 2], window=256, hop=80), rtol=0, atol=1e-12)


def test_istft_gives_the_nearest_wave() -> None:
    target = torch.complex(noise(10, 9, dtype=torch.float64), noise(10, 9, seed=1, dtype=torch.float64))
    target[:, [0, -1]] = target[:, [0, -1]].real.to(target.dtype)  # as for every real wave
    wave = audio.istft(target, window=16, hop=4).requires_grad_()
    weight = torch.tensor(
        [1.0] + [2.0] * 7 + [1.0]
    )  # bins in between count twice, for the negative frequency
    error = ((audio.stft(wave, window=16, hop=4) - target).abs().square() * weight).sum()
    (slope,) = torch.autograd.grad(error, wave)
    assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-10)


def test_sounds_that_cannot_be_framed_are_refused() -> None:
    with pytest.raises(ValueError, match="79 samples are less than one frame"):
        audio.stft(torch.zeros(79), window=256, hop=80)
    with pytest.raises(ValueError, match="do not overlap"):
        audio.istft(audio.stft(torch.zeros(900), window=256, hop=129), window=256, hop=129)


def test_a_tone_is_in_its_bin_and_in_its_band() -> None:
    wave = audio.tone(torch.tensor([[1000.0], [2500.0]], dtype=torch.float64), 8000, 8000)
    assert_close(
        wave[0, :8], torch.tensor([0, 0.5**0.5, 1, 0.5**0.5, 0, -(0.5**0.5), -1, -(0.5**0.5)]).double()
    )
    spectrum = audio.stft(wave, window=256, hop=80).abs()
    assert (spectrum[0, 5:-5].argmax(-1) == 32).all()
    assert (spectrum[1, 5:-5].argmax(-1) == 80).all()
    chord = audio.tone(torch.tensor([1000.0, 2500.0], dtype=torch.float64), 8000, 8000)
    assert_close(chord, wave.mean(0))


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mel_and_back(scale: audio.Scale) -> None:
    hertz = torch.linspace(0, 8000, 101, dtype=torch.float64)
    assert_close(audio.mel_to_hertz(audio.hertz_to_mel(hertz, scale), scale), hertz)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("area", [False, True])
@pytest.mark.parametrize(
    ("bands", "window", "rate", "low", "high"),
    [(40, 256, 8000, 40.0, 4000.0), (80, 400, 16000, 0.0, 8000.0), (80, 1024, 22050, 0.0, 8000.0)],
)
def test_mel_filters_match_transformers(
    bands: int, window: int, rate: int, low: float, high: float, scale: audio.Scale, area: bool
) -> None:
    ours = audio.mel_filters(bands, window=window, rate=rate, low=low, high=high, scale=scale, area=area)
    theirs = mel_filter_bank(
        window // 2 + 1, bands, low, high, rate, norm="slaney" if area else None, mel_scale=scale
    )
    assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-6)
    ours.zero_()  # the argument belongs to the caller
    again = audio.mel_filters(bands, window=window, rate=rate, low=low, high=high, scale=scale, area=area)
    assert again.max() > 0


def test_more_bands_than_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="contains none of the 129 bins"):
        audio.mel_filters(120, window=256, rate=8000, scale="htk", area=False)


@pytest.mark.parametrize("bands", [80, 128])
def test_whispers_features_match_transformers(bands: int) -> None:
    waves = noise(2, 30 * 16_000) * torch.linspace(0, 0.3, 30 * 16_000)
    waves[1, 16_000:] = 0
    theirs = WhisperFeatureExtractor(feature_size=bands)(
        list(waves.numpy()), sampling_rate=16_000, return_tensors="pt"
    )["input_features"]
    ours = audio.log_mel_whisper(waves, bands=bands)
    assert ours.shape == (2, 3000, bands)
    assert_close(ours.mT, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "features",
    [
        partial(audio.log_mel_whisper, rate=8000, window=64, hop=16, bands=6),
    ],
)
def test_features_have_gradients_and_take_batches(features: Callable[[Tensor], Tensor]) -> None:
    wave = noise(2, 96, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(features, (wave,))
    assert_close(features(wave)[1], features(wave[1]))
    assert features(wave.unsqueeze(1)).shape == (2, 1, 6, 6)
    silence = torch.zeros(96, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(features(silence).sum(), silence)
    assert slope.isfinite().all()


def test_magnitudes_are_found_again_from_their_mel_spectrogram() -> None:
    filters = audio.mel_filters(40, window=256, rate=8000, low=40.0, scale="htk", area=False)
    magnitude = noise(5, 129, dtype=torch.float64).abs()
    mel = magnitude @ filters
    found = audio.mel_to_magnitude(mel, filters, rounds=500)
    assert (found >= 0).all()
    assert (found @ filters - mel).norm() / mel.norm() < 0.01
    assert not audio.mel_to_magnitude(torch.zeros_like(mel), filters).any()


def test_each_round_of_least_squares_comes_nearer() -> None:
    filters = audio.mel_filters(40, window=256, rate=8000, low=40.0, scale="htk", area=False)
    mel = noise(5, 40, dtype=torch.float64).abs()  # values that no magnitudes reach exactly
    errors = [
        float((audio.mel_to_magnitude(mel, filters, rounds=n) @ filters - mel).norm()) for n in range(1, 30)
    ]
    assert all(after <= before + 1e-12 for before, after in pairwise(errors))


def inconsistency(wave: Tensor, magnitude: Tensor) -> float:
    return float((audio.stft(wave, window=256, hop=80).abs() - magnitude).norm() / magnitude.norm())


def chirp() -> Tensor:
    seconds = torch.arange(4000, dtype=torch.float64) / 8000
    return (2 * math.pi * (300 * seconds + 1500 * seconds.square())).sin()


def test_griffin_lim_never_comes_off_and_momentum_is_faster() -> None:
    magnitude = audio.stft(chirp(), window=256, hop=80).abs()

    def error(rounds: int, momentum: float) -> float:
        wave = audio.griffin_lim(
            magnitude,
            window=256,
            hop=80,
            rounds=rounds,
            momentum=momentum,
            generator=torch.Generator().manual_seed(0),
        )
        assert wave.shape == (4000,)
        return inconsistency(wave, magnitude)

    plain = [error(rounds, 0.0) for rounds in range(0, 40, 4)]
    assert all(after < before for before, after in pairwise(plain))
    assert error(60, 0.99) < error(60, 0.0) < 0.5 * plain[0]


def test_griffin_lim_is_the_plain_loop_of_its_definition() -> None:
    magnitude = audio.stft(chirp(), window=256, hop=80).abs()
    turns = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0)).double()
    spectrum = magnitude * torch.exp(2j * math.pi * turns)
    previous = torch.zeros_like(spectrum)
    for _ in range(5):
        t = audio.stft(audio.istft(spectrum, window=256, hop=80), window=256, hop=80)
        spectrum = magnitude * torch.exp(1j * (t - 0.99 / 1.99 * previous).angle())  # as in librosa
        previous = t
    ours = audio.griffin_lim(
        magnitude, window=256, hop=80, rounds=5, generator=torch.Generator().manual_seed(0)
    )
    assert_close(ours, audio.istft(spectrum, window=256, hop=80), rtol=0, atol=1e-6)
