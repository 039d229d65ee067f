"""Tensors as WAV files."""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from readtrack.runs.sounds import save_wav


def test_another_reader_finds_the_same_samples(tmp_path: Path) -> None:
    sound = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_wav(tmp_path / "x.wav", sound, 8000)
    rate, levels = wavfile.read(tmp_path / "x.wav")
    assert rate == 8000
    assert levels.dtype == np.int16
    torch.testing.assert_close(torch.from_numpy(levels / 32767.0).float(), sound, atol=1 / 65000, rtol=0)


def test_two_channels_are_left_and_right(tmp_path: Path) -> None:
    left, right = torch.zeros(50), torch.full((50,), 0.5)
    save_wav(tmp_path / "x.wav", torch.stack([left, right]), 16000)
    _, levels = wavfile.read(tmp_path / "x.wav")
    assert levels.shape == (50, 2)
    assert set(levels[:, 0]) == {0}
    assert set(levels[:, 1]) == {16384}


def test_it_is_sixteen_bit_pcm(tmp_path: Path) -> None:
    save_wav(tmp_path / "x.wav", torch.zeros(80), 8000)
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        assert (file.getnframes(), file.getcomptype()) == (80, "NONE")


def test_values_are_clamped(tmp_path: Path) -> None:
    save_wav(tmp_path / "x.wav", torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]), 8000)
    assert list(wavfile.read(tmp_path / "x.wav")[1]) == [-32767, -32767, 0, 32767, 32767]


def test_a_tensor_with_gradients_or_of_half_precision_is_written_too(tmp_path: Path) -> None:
    save_wav(tmp_path / "x.wav", torch.ones(4, requires_grad=True), 8000)
    save_wav(tmp_path / "y.wav", torch.ones(4, dtype=torch.bfloat16), 8000)
    assert (tmp_path / "x.wav").read_bytes() == (tmp_path / "y.wav").read_bytes()


@pytest.mark.parametrize("shape", [(), (0,), (3, 80), (1, 2, 80)])
def test_another_shape_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a sound is"):
        save_wav(tmp_path / "x.wav", torch.zeros(shape), 8000)
    assert not (tmp_path / "x.wav").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_a_number_is_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        save_wav(tmp_path / "x.wav", torch.tensor([0.0, value]), 8000)


def test_a_rate_is_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rate=0"):
        save_wav(tmp_path / "x.wav", torch.zeros(80), 0)
