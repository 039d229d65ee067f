"""RMSProp against torch's and the lecture's own words, and the experiment's rules."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from readtrack.papers import rmsprop
from readtrack.papers.rmsprop import RMSProp, accumulate
from readtrack.papers.sgd import SGD


@pytest.mark.parametrize(("decay", "eps"), [(0.9, 1e-8), (0.99, 1e-3), (0.0, 1e-8)])
def test_every_step_is_torchs(assert_same_walk, decay, eps):
    torchs = partial(torch.optim.RMSprop, lr=0.01, alpha=decay, eps=eps)
    assert_same_walk(partial(RMSProp, lr=0.01, decay=decay, eps=eps), torchs, rtol=0, atol=1e-11)


def test_the_mean_square_is_the_sum_of_all_past_squares():
    gradients = torch.randn(20, 3, dtype=torch.float64)
    square = torch.zeros(3, dtype=torch.float64)
    for gradient in gradients:
        accumulate(square, gradient, decay=0.9)
    shares = 0.1 * 0.9 ** torch.arange(19, -1, -1, dtype=torch.float64)
    assert_close(square, shares @ gradients**2, rtol=0, atol=1e-14)


def test_without_memory_it_is_rprops_sign():
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    w.grad = torch.tensor([1e-3, -5.0, 1e4, -0.2], dtype=torch.float64)
    RMSProp([w], lr=0.1, decay=0.0, eps=0.0).step()
    assert_close(w.detach(), torch.tensor([-0.1, 0.1, -0.1, 0.1], dtype=torch.float64), rtol=0, atol=1e-15)


def test_scaling_a_gradient_does_not_change_the_walk():
    walks = []
    for scale in (1.0, 1e4):
        w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimizer = RMSProp([w], lr=0.01, eps=0.0)
        draw = torch.Generator().manual_seed(0)
        for _ in range(10):
            w.grad = scale * torch.randn(3, dtype=torch.float64, generator=draw)
            optimizer.step()
        walks.append(w.detach())
    assert_close(*walks, rtol=1e-12, atol=0)


def test_the_lectures_defaults():
    group = RMSProp([torch.ones(1)], lr=0.1).param_groups[0]
    assert (group["decay"], group["eps"]) == (0.9, 1e-8)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(rmsprop)
    assert record.curves["training loss, batches of 64"].keys() == {
        "SGD", "Nesterov momentum", "AdaGrad", "RMSProp",
    }  # fmt: skip
    assert record.curves["training loss, batches of 16"].keys() == {"Rprop", "signs", "RMSProp"}
    assert record.curves["training loss, batches of 1079"].keys() == {"Rprop"}


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(rmsprop, seed=1), run_experiment(rmsprop, seed=2)
    assert first.curves != other.curves


def values(record, claim):
    return next(c["values"] for c in record.claims if c["claim"]["name"] == claim.name)


def test_in_a_null_run_all_arms_are_the_same(run_experiment):
    record = run_experiment(rmsprop, null=True)
    for claim in (rmsprop.SCALES, rmsprop.MINI_BATCHES):
        found = values(record, claim)
        assert all(found[bound.metric] == 1.0 for bound in claim.rule)


def test_each_break_makes_the_arm_its_control(run_experiment):
    found = values(run_experiment(rmsprop, broken="no scaling"), rmsprop.SCALES)
    assert found["loss of RMSProp / loss of SGD"] == pytest.approx(1, rel=1e-4)
    found = values(run_experiment(rmsprop, broken="no memory"), rmsprop.MINI_BATCHES)
    assert found["loss of RMSProp / loss of signs"] == 1.0


def test_signs_are_signs_and_without_scaling_it_is_sgd(assert_same_walk):
    w = torch.zeros(3, requires_grad=True)
    w.grad = torch.tensor([3.0, -1e-3, 0.5])
    rmsprop.signs([w], lr=0.1).step()
    assert_close(w.detach(), torch.tensor([-0.1, 0.1, -0.1]))
    ours, plain = (torch.zeros(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for optimizer, weight in ((rmsprop.unscaled([ours], lr=0.1), ours), (SGD([plain], lr=0.1), plain)):
        draw = torch.Generator().manual_seed(0)
        for _ in range(10):
            weight.grad = torch.randn(5, dtype=torch.float64, generator=draw)
            optimizer.step()
    assert_close(ours, plain, rtol=1e-5, atol=1e-7)


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(rmsprop)) == 2
