"""The spectral distance and periodicity, compared with NumPy loops of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor

with install_import_hook("readtrack.scores.sound", "beartype.beartype"):
    from readtrack.scores import sound
from readtrack.data import speech


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_are_in_decibels_and_loudness_is_one_of_them() -> None:
    wave = noise(8000)
    assert sound.log_spectral_distance(wave, 2 * wave, window=256, hop=80) == pytest.approx(
        20 * math.log10(2)
    )
    assert sound.log_spectral_distance(wave, wave, window=256, hop=80) == 0


def test_log_spectral_distance_is_the_loop_of_its_definition() -> None:
    a, b = noise(1600), noise(1600, seed=1)
    b[400:1200] = 0  # below the floor
    hann = np.hanning(129)[:128]
    total = 0.0
    for frame in range(25):
        bins = []
        for wave in (a, b):
            cut = np.pad(wave.numpy(), 64)[frame * 64 : frame * 64 + 128]
            bins.append(20 * np.log10(np.maximum(np.abs(np.fft.rfft(cut * hann)), 1e-3)))
        total += np.sqrt(np.mean((bins[0] - bins[1]) ** 2))
    found = sound.log_spectral_distance(a, b, window=128, hop=64)
    assert found == pytest.approx(total / 25, rel=1e-9)


@pytest.mark.parametrize("hertz", [90.0, 123.4, 239.0])
def test_a_period_is_periodic_and_noise_takes_its_share(hertz: float) -> None:
    seconds = torch.arange(16_000, dtype=torch.float64) / 8000
    voice = sum((2 * math.pi * k * hertz * seconds + k).sin() / k for k in range(1, 9))
    assert isinstance(voice, Tensor)
    pitch = torch.full((200,), hertz)
    middle = pitch.clone()
    middle[:4] = middle[-4:] = 0  # the window covers the ends
    assert sound.periodicity(voice, middle, rate=8000) == pytest.approx(1, abs=0.01)
    hiss = noise(16_000)
    assert abs(sound.periodicity(hiss, middle, rate=8000)) < 0.1
    share = float(voice.square().mean() / (voice.square().mean() + 1))
    assert sound.periodicity(voice + hiss, middle, rate=8000) == pytest.approx(share, abs=0.06)
    assert sound.periodicity(voice, middle * 1.37, rate=8000) < 0.6


@pytest.mark.parametrize("i", range(4))
def test_griffin_lims_phases_are_less_periodic_than_the_voice(i: int) -> None:
    utterance = speech.recite(i, "train")
    natural = sound.periodicity(utterance.wave, utterance.pitch, rate=8000)
    rebuilt = speech.wave_of(speech.log_mel(utterance.wave), torch.Generator().manual_seed(0))
    assert natural > 0.85
    assert sound.periodicity(rebuilt, utterance.pitch, rate=8000) < natural - 0.02


def test_silence_has_no_period() -> None:
    assert sound.periodicity(torch.zeros(8000), torch.full((100,), 120.0), rate=8000) == 0
    with pytest.raises(ValueError, match="no frame is voiced"):
        sound.periodicity(torch.zeros(8000), torch.zeros(100), rate=8000)


def test_a_better_vocoder_is_nearer() -> None:
    wave = speech.add_noise(speech.draw(2, "judge")[0].wave, 40, torch.Generator().manual_seed(0))
    mel = speech.log_mel(wave)
    scores = []
    for rounds in (0, 4, 32):
        rebuilt = speech.wave_of(mel, torch.Generator().manual_seed(0), rounds)
        scores.append(sound.log_spectral_distance(wave, rebuilt, window=512, hop=128))
    assert scores[0] > scores[1] > scores[2]
