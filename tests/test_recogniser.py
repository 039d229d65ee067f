"""The digit recogniser: lengths, decoding, the cache, and its accuracy on the synthetic voice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor
from torch.testing import assert_close

with install_import_hook("readtrack.scores.recogniser", "beartype.beartype"):
    from readtrack.scores import recogniser
from readtrack.bench.case import Budget
from readtrack.data import speech
from readtrack.runs.events import EventWriter
from readtrack.runs.run import Run
from readtrack.scores import error_rate


def a_run(folder: Path, budget: Budget, seed: int = 0) -> Run:
    folder.mkdir()
    return Run(
        folder=folder,
        events=EventWriter(folder),
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=seed,
        budget=budget,
        settings={},
    )


def mels(count: int, snr: float) -> tuple[list[tuple[speech.Word, ...]], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    said = [speech.draw(i, "judge")[0] for i in range(count)]
    heard = [speech.log_mel(speech.add_noise(utterance.wave, snr, generator)) for utterance in said]
    return [utterance.words for utterance in said], heard


def test_frames_beyond_a_length_have_no_influence() -> None:
    torch.manual_seed(0)
    network = recogniser.Recogniser()
    mel = torch.randn(2, 90, 40)
    lengths = torch.tensor([90, 61])
    rows, counts = network(mel, lengths)
    assert counts.tolist() == [23, 16]
    assert_close(rows.exp().sum(-1), torch.ones(2, 23))
    alone, _ = network(mel[1:, :61], lengths[1:])
    assert_close(rows[1, :16], alone[0], rtol=0, atol=1e-5)


def test_gradients_reach_every_weight() -> None:
    network = recogniser.Recogniser()
    rows, _ = network(torch.randn(2, 40, 40), torch.tensor([40, 40]))
    rows[..., 1].sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name


def test_repeats_are_joined_and_blanks_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network = recogniser.Recogniser()
    paths = torch.tensor([[0, 3, 3, 0, 3, 1, 1, 10], [5, 5, 0, 0, 6, 7, 7, 7]])
    rows = torch.nn.functional.one_hot(paths, 11).float()
    monkeypatch.setattr(network, "forward", lambda mel, lengths: (rows, torch.tensor([8, 5])))
    assert recogniser.transcribe(network, [torch.zeros(32, 40), torch.zeros(20, 40)]) == [
        [2, 2, 0, 9],
        [4, 5],
    ]


def test_it_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recogniser.recogniser(a_run(tmp_path / "a", "smoke"))
    monkeypatch.setattr(recogniser, "_train", lambda network, run: pytest.fail("trained twice"))
    again = recogniser.recogniser(a_run(tmp_path / "b", "smoke"))
    for ours, kept in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, kept)
    assert not again.training


@pytest.mark.slow
def test_it_understands_speakers_it_never_heard_and_one_voice(tmp_path: Path) -> None:
    network = recogniser.recogniser(a_run(tmp_path / "run", "quick", seed=3))
    words, heard = mels(100, 40.0)
    assert error_rate(words, recogniser.transcribe(network, heard)) < 0.03
    shuffled = [mel[torch.randperm(len(mel))] for mel in heard]
    assert error_rate(words, recogniser.transcribe(network, shuffled)) > 0.5
    voice = [speech.recite(i, "judge", (6, 8)) for i in range(20)]
    generator = torch.Generator().manual_seed(1)
    room = [speech.log_mel(speech.add_noise(utterance.wave, 40, generator)) for utterance in voice]
    assert error_rate([u.words for u in voice], recogniser.transcribe(network, room)) < 0.05
    rebuilt = [speech.log_mel(speech.wave_of(mel, generator)) for mel in room]
    assert error_rate([u.words for u in voice], recogniser.transcribe(network, rebuilt)) < 0.08
