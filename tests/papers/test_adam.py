"""Adam compared with torch's, the paper's statements on its steps, and the experiment's rules."""

from __future__ import annotations

import importlib
import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import adam
from readtrack.papers.adam import Adam
from readtrack.papers.adam.experiment import RIVALS, Uncorrected, unscaled
from readtrack.papers.momentum import Momentum
from readtrack.papers.rmsprop import RMSProp
from readtrack.papers.sgd import SGD
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment = importlib.import_module("readtrack.papers.adam.experiment")


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.95, 0.9999)])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_every_step_matches_torchs(assert_same_walk, betas, eps):
    settings = {"lr": 0.01, "betas": betas, "eps": eps}
    assert_same_walk(partial(Adam, **settings), partial(torch.optim.Adam, **settings), rtol=0, atol=1e-11)


def test_the_defaults_match_torchs(assert_same_walk):
    assert_same_walk(Adam, torch.optim.Adam, rtol=0, atol=1e-12)


def test_the_first_step_is_the_gradients_sign():
    """Whatever the gradient's size, both means come from this gradient alone, so the ratio is ±1."""
    gradient = torch.tensor([3.0, -1e-6, 1e5, -0.2], dtype=torch.float64)
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    w.grad = gradient
    Adam([w], lr=0.1, eps=0.0).step()
    assert_close(w.detach(), -0.1 * gradient.sign(), rtol=1e-13, atol=0)


def test_an_uncorrected_first_step_is_too_long():
    """It is (1 − beta1) / √(1 − beta2) times lr: 3.2 with the paper's defaults."""
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    w.grad = torch.randn(3, dtype=torch.float64)
    Uncorrected([w], lr=0.1, eps=0.0).step()
    expected = torch.full_like(w.detach(), 0.1 * 0.1 / 0.001**0.5)
    assert_close(w.detach().abs(), expected, rtol=1e-12, atol=0)


def test_without_first_moment_and_correction_it_is_rmsprop(assert_same_walk):
    uncorrected = partial(Uncorrected, lr=0.01, betas=(0.0, 0.9))
    assert_same_walk(uncorrected, partial(RMSProp, lr=0.01, decay=0.9), rtol=0, atol=1e-12)


def test_the_corrected_moments_are_unbiased():
    """Section 3: for a constant gradient, the corrected means equal the gradient and its square."""
    g = torch.tensor([2.0, -0.5], dtype=torch.float64)
    w, first, second = (torch.zeros(2, dtype=torch.float64) for _ in range(3))
    for t in range(1, 30):
        Adam.update(w, g, first, second, t=t, lr=0.1, betas=(0.9, 0.999), eps=1e-8)
        assert_close(first / (1 - 0.9**t), g, rtol=1e-12, atol=0)
        assert_close(second / (1 - 0.999**t), g**2, rtol=1e-12, atol=0)


def test_a_late_gradient_begins_at_the_first_step():
    """A weight without gradients for ten steps has the same moments afterwards as a weight alone."""
    ends = []
    for kind in (Adam, torch.optim.Adam):
        other, late = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
        optimizer = kind([other, late], lr=0.1)
        for step in range(12):
            other.grad = torch.ones_like(other)
            late.grad = torch.ones_like(late) if step >= 10 else None
            optimizer.step()
        ends.append(late.item())
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)
    assert ends[0] == pytest.approx(-0.2, rel=1e-6)


def test_the_papers_defaults():
    group = Adam([torch.ones(1)]).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.9, 0.999), 1e-8)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(adam)
    assert record.curves["training loss, digits under dropout"].keys() == {*RIVALS, "Adam"}
    assert record.curves["training loss, next character"].keys() == {*RIVALS, "Adam"} - {"heavy ball"}
    assert record.curves["training loss, digits, beta2 0.9999"].keys() == {"corrected", "uncorrected"}


def test_the_set_up_is_the_stated_one(comparisons):
    """All optimisers of a claim have the same grid of learning rates, whose third value is used at smoke."""
    assert digest(experiment) == "f42c188a06d2"
    assert experiment.RATES[::2] == pytest.approx((0.001, 0.01, 0.1, 1.0))
    assert experiment.STEPS[::2] == pytest.approx((1e-4, 1e-3, 1e-2, 0.1, 1.0))
    dropout, sparse, correction = comparisons(adam)
    assert dropout.grid == sparse.grid == experiment.RATES[2:3]
    assert correction.grid == experiment.STEPS[3:5]
    assert all(given.again for given in (dropout, sparse, correction))  # judged in a second training
    for given in (dropout, sparse):
        for name, arm in given.arms.items():
            assert arm.make is (Adam if name == "Adam" else RIVALS[name])


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(adam, seed=1), run_experiment(adam, seed=2)
    assert first.curves != other.curves


def values(record, claim):
    return next(c["values"] for c in record.claims if c["claim"]["name"] == claim.name)


def test_rivals_take_adams_place_alone(run_experiment):
    plain = values(run_experiment(adam), adam.DROPOUT)
    found = values(run_experiment(adam, broken="RMSProp"), adam.DROPOUT)
    assert found["end loss, Adam / RMSProp"] == 1.0
    assert found["end loss, Nesterov momentum"] == plain["end loss, Nesterov momentum"]
    assert found["end loss, Adam / SGD"] != plain["end loss, Adam / SGD"]


def test_the_network_of_figure_2_has_dropout_after_either_layer():
    network = experiment.with_dropout(64)
    kinds = [type(layer).__name__ for layer in network]
    assert kinds == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert {layer.p for layer in network if hasattr(layer, "p")} == {0.5}
    widths = [layer.out_features for layer in network if hasattr(layer, "out_features")]
    assert widths == [256, 256, 10]


def stepped(kind, **settings):
    """Two steps on the same gradients."""
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = kind([w], lr=0.1, eps=0.0, **settings)
    for _ in range(2):
        w.grad = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
        optimizer.step()
    return w.detach()


def test_near_misses_change_the_named_part():
    """With a constant gradient, Adam moves every weight by lr in each step."""
    sign = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)
    assert_close(stepped(Adam), 0.2 * sign)
    g = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    assert_close(stepped(experiment.OneDivisor), -0.2 * g / g.square().mean().sqrt())
    assert_close(stepped(experiment.OneCorrected), 0.1 * (0.1 + 0.19) * sign)
    first, second = 0.1 / 0.001**0.5, 0.19 / 0.001999**0.5
    assert_close(stepped(Uncorrected), 0.1 * (first + second) * sign)
    assert_close(stepped(experiment.WarmedUp), 0.1 * (first / 50 + second * 2 / 50) * sign)


def test_without_scaling_it_is_the_corrected_first_moment():
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = unscaled([w], lr=0.1)
    first, place = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, 6):
        w.grad = torch.randn(4, dtype=torch.float64)
        first = 0.9 * first + 0.1 * w.grad
        place = place - 0.1 * first / (1 - 0.9**t)
        optimizer.step()
    assert_close(w.detach(), place.detach(), rtol=1e-5, atol=1e-7)


def test_the_rivals_match_their_names():
    """They have their usual constants: weakened rivals would let Adam win the claims."""
    groups = {arm: make([torch.ones(1)], lr=0.1) for arm, make in RIVALS.items()}
    kinds = {
        "SGD": SGD, "heavy ball": Momentum, "Nesterov momentum": torch.optim.SGD,
        "AdaGrad": torch.optim.Adagrad, "RMSProp": RMSProp,
    }  # fmt: skip
    assert {arm: type(optimizer) for arm, optimizer in groups.items()} == kinds
    assert all(optimizer.param_groups[0]["lr"] == 0.1 for optimizer in groups.values())
    nesterov = groups["Nesterov momentum"].param_groups[0]
    assert (nesterov["momentum"], nesterov["nesterov"]) == (0.9, True)
    assert groups["heavy ball"].param_groups[0]["momentum"] == 0.9
    assert groups["RMSProp"].param_groups[0]["decay"] == 0.9


def test_a_learning_rate_trains_if_the_last_losses_are_low(part_of_run):
    """The last quarter counts. Half of ln 10 is 1.15."""
    ends = {0.001: (1.1, 1.1), 0.01: (1.0, 1.4), 0.1: (0.1, 0.3), 1.0: (0.5, math.nan)}
    points = {rate: [2.0] * 6 + list(end) for rate, end in ends.items()}
    at = Trial(Workshop(part_of_run()), Work(arm="corrected"), arm="corrected")
    found = experiment.end_loss_and_steps(at, Sweep(points[0.1], 0.1, points))
    assert found == {"end loss": pytest.approx(0.2), "steps that train": 2.0}


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(adam)) == 2
