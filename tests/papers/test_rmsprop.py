"""RMSProp compared with torch's and the lecture's own formula, and the experiment's rules."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from readtrack.papers import rmsprop
from readtrack.papers.rmsprop import RMSProp, accumulate
from readtrack.papers.sgd import SGD


@pytest.mark.parametrize(("decay", "eps"), [(0.9, 1e-8), (0.99, 1e-3), (0.0, 1e-8)])
def test_every_step_matches_torchs(assert_same_walk, decay, eps):
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
    arms = {"SGD", "Nesterov momentum", "RMSProp"}
    assert record.curves["training loss, batches of 64"].keys() == arms
    assert record.curves["training loss, batches of 16"].keys() == {"Rprop", "signs", "RMSProp"}
    whole = record.curves["training loss, batches of all images"]
    assert whole.keys() == {"Rprop, all images@whole batches"}


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(rmsprop, seed=1), run_experiment(rmsprop, seed=2)
    assert first.curves != other.curves


def values(record, name):
    return next(c["values"] for c in record.claims if c["claim"]["name"] == name)


def test_breaks_put_another_optimiser_in_rmsprops_place(run_experiment):
    plain = run_experiment(rmsprop)
    for name, same in (("no scaling", "SGD"), ("no memory", "signs"), ("AdaGrad", "")):
        record = run_experiment(rmsprop, broken=name)
        for claim in record.claims:
            for metric, value in claim["values"].items():
                if metric == f"end loss, RMSProp / {same}":
                    assert value == pytest.approx(1, rel=1e-4)
                elif "RMSProp" in metric:
                    assert value != values(plain, claim["claim"]["name"])[metric]
                else:
                    assert value == values(plain, claim["claim"]["name"])[metric]


def test_one_divisor_is_a_step_of_one_length_for_all_weights():
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    w.grad = torch.tensor([3.0, -1e-3, 0.5], dtype=torch.float64)
    rmsprop.OneDivisor([w], lr=0.1, decay=0.0, eps=0.0).step()
    assert_close(w.detach(), -0.1 * w.grad / w.grad.square().mean().sqrt())


def test_the_task_is_the_one_that_is_described(part_of_run):
    problem = rmsprop.badly_scaled(part_of_run(), 16)
    assert problem.batch == 16
    assert problem.inputs.shape == (1079, 64)
    inked = problem.inputs.amax(0)
    inked = inked[inked > 0]
    assert inked.max() / inked.min() > 100
    assert all((weight == 0).all() for weight in problem.build().parameters())


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
