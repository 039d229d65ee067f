"""Adam against torch's, what the paper derives about its steps, and the experiment's rules."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from readtrack.papers import adam
from readtrack.papers.adam import Adam
from readtrack.papers.rmsprop import RMSProp


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.95, 0.9999)])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_every_step_is_torchs(assert_same_walk, betas, eps):
    settings = {"lr": 0.01, "betas": betas, "eps": eps}
    assert_same_walk(partial(Adam, **settings), partial(torch.optim.Adam, **settings), rtol=0, atol=1e-11)


def test_the_defaults_are_torchs(assert_same_walk):
    assert_same_walk(Adam, torch.optim.Adam, rtol=0, atol=1e-12)


def test_the_first_step_is_the_gradients_sign():
    """Whatever the gradient's size: both means are the gradient's own, so that the ratio is ±1."""
    gradient = torch.tensor([3.0, -1e-6, 1e5, -0.2], dtype=torch.float64)
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    w.grad = gradient
    Adam([w], lr=0.1, eps=0.0).step()
    assert_close(w.detach(), -0.1 * gradient.sign(), rtol=1e-13, atol=0)


def test_an_uncorrected_first_step_is_too_long():
    """(1 − beta1) / √(1 − beta2) times lr: 3.2 with the paper's defaults."""
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    w.grad = torch.randn(3, dtype=torch.float64)
    Adam([w], lr=0.1, eps=0.0, correct_bias=False).step()
    expected = torch.full_like(w.detach(), 0.1 * 0.1 / 0.001**0.5)
    assert_close(w.detach().abs(), expected, rtol=1e-12, atol=0)


def test_without_first_moment_and_correction_it_is_rmsprop(assert_same_walk):
    uncorrected = partial(Adam, lr=0.01, betas=(0.0, 0.9), correct_bias=False)
    assert_same_walk(uncorrected, partial(RMSProp, lr=0.01, decay=0.9), rtol=0, atol=1e-12)


def test_the_corrected_moments_are_unbiased():
    """Section 3: of a constant gradient, both corrected means are exactly it, and its square."""
    g = torch.tensor([2.0, -0.5], dtype=torch.float64)
    w, first, second = (torch.zeros(2, dtype=torch.float64) for _ in range(3))
    for t in range(1, 30):
        adam.adam([w], [g], [first], [second], t=t, lr=0.1, betas=(0.9, 0.999), eps=1e-8)
        assert_close(first / (1 - 0.9**t), g, rtol=1e-12, atol=0)
        assert_close(second / (1 - 0.999**t), g**2, rtol=1e-12, atol=0)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(adam)
    assert record.curves["batch loss at the best rate, digits"].keys() == adam.ARMS.keys()
    assert len(record.curves["batch loss at a step of 0.03"]) == 6
    assert [claim["verdict"] for claim in record.claims] == ["not judged"] * 3


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(adam, seed=1), run_experiment(adam, seed=2)
    assert first.curves != other.curves


def test_the_rules_can_fail():
    assert adam.AT_LEAST_AS_FAST.judge({"loss of Adam / lowest of the others": 1.1}) == "not reproduced"
    assert adam.EITHER_KIND.judge({"Adam's worse ratio / smallest of the others'": 1.1}) == "not reproduced"
    name = "worst of 50 losses, uncorrected / corrected"
    assert adam.CORRECTION.judge({name: 1.5}) == "weak"
    assert adam.CORRECTION.judge({name: 0.9}) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(adam)) == 2
