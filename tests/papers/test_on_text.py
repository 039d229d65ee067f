"""Bits per character of networks with known losses, and papers that read a text with `--data`."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from readtrack.checks.experiment import run_experiment
from readtrack.runs.on_text import bits


class Counts(nn.Module):
    """A predictor that is certain of the next id, or equally certain of all ids except `size - choices`."""

    def __init__(self, size, choices):
        super().__init__()
        self.size, self.choices = size, choices

    def forward(self, ids):
        following = sum(F.one_hot((ids + step) % self.size, self.size) for step in range(1, self.choices + 1))
        return 100.0 * following, "its state"


@pytest.mark.parametrize("choices", [1, 2, 8])
def test_bits_are_the_logarithm_of_the_choices(part_of_run, choices):
    windows = (torch.arange(50)[:, None] + torch.arange(9)) % 8
    assert bits(part_of_run(), Counts(8, choices), windows) == pytest.approx(math.log2(choices), abs=1e-6)


@pytest.mark.parametrize(
    ("paper", "arms"),
    [
        ("rnn", {"RNN", "rectified units that start at the identity"}),
        ("lstm", {"LSTM", "RNN"}),
        ("gpt", {"GPT", "GPT, one layer"}),
        ("transformer_xl", {"with memory", "without memory"}),
        ("mamba", {"selective", "time-invariant"}),
    ],
)
def test_papers_read_a_text(tmp_path, paper, arms):
    module = importlib.import_module(f"readtrack.papers.{paper}")
    record, _ = run_experiment(module, tmp_path / "run", settings={"text": "prose"})
    found = {arm: value for (name, arm), value in record.values.items() if name == "bits per character"}
    assert set(found) == arms
    for value in found.values():  # untrained networks are about as good as guessing
        assert 4 < value < 8
    assert {event["verdict"] for event in record.claims} <= {"not judged", "held"}
    assert any("--data" in event["why"] for event in record.claims)


@pytest.mark.parametrize("keep", [0, 2, 3, 20])
def test_segments_are_read_with_the_memory_before_them(keep):
    from readtrack.papers.transformer_xl.arms import Segments
    from readtrack.papers.transformer_xl.model import TransformerXL

    network = TransformerXL(7, model=8, heads=2, hidden=8, layers=2, std=0.5).double().eval()
    ids = torch.randint(7, (2, 8))
    found = Segments(network, 3, keep=keep)(ids)
    assert torch.equal(found[:, :3], network(ids[:, :3])[0])
    whole = network(ids)[0]
    # With a memory of all earlier tokens, the result equals reading everything at once.
    assert torch.allclose(found, whole, rtol=1e-9, atol=1e-11) == (keep == 20)
