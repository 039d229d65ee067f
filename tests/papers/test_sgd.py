"""SGD against torch's, the frame that its family shares, and the experiment's rules."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from readtrack.papers import adam, adamw, rmsprop, schedule_free, sgd
from readtrack.papers.sgd import SGD, trials
from readtrack.plugin import Bench


def test_every_step_is_torchs(assert_same_walk):
    assert_same_walk(partial(SGD, lr=0.03), partial(torch.optim.SGD, lr=0.03), rtol=0, atol=1e-12)


def test_a_scheduler_of_torchs_makes_the_steps_shrink(assert_same_walk):
    def scheduled(kind):
        def make(weights):
            optimizer = kind(weights, lr=0.5)
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
            return optimizer

        return make

    assert_same_walk(scheduled(SGD), scheduled(torch.optim.SGD), rtol=0, atol=1e-12)


def test_groups_have_steps_of_their_own_and_weights_without_a_gradient_stay():
    moved, slow, still = (torch.ones(2, requires_grad=True) for _ in range(3))
    optimizer = SGD([{"params": [moved, still]}, {"params": [slow], "lr": 0.25}], lr=0.5)
    moved.grad, slow.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    assert [w[0].item() for w in (moved, slow, still)] == [0.5, 0.75, 1.0]
    assert [group["t"] for group in optimizer.param_groups] == [1, 1]


def test_no_gradient_at_all_is_no_step():
    optimizer = SGD([torch.ones(2, requires_grad=True)], lr=0.5)
    optimizer.step()
    assert "t" not in optimizer.param_groups[0]


def test_the_1_over_t_walk_is_the_running_mean():
    """Robbins and Monro's own example: with steps 1/t, the root of E[w − x] is found as the mean of x."""
    samples = torch.randn(50, dtype=torch.float64)
    w = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = SGD([w], lr=1.0)
    for t, x in enumerate(samples, 1):
        optimizer.param_groups[0]["lr"] = 1 / t
        w.grad = w.detach() - x
        optimizer.step()
        assert_close(w.detach(), samples[:t].mean(), rtol=0, atol=1e-14)


# What the family shares


def test_training_descends_and_the_penalty_shrinks_weights():
    (images, labels), _ = trials.digits(torch.device("cpu"))
    sizes = []
    for penalty in (0.0, 0.01):
        model = trials.perceptron(0)
        optimizer = SGD(model.parameters(), lr=0.3)
        draw = torch.Generator().manual_seed(0)
        curve = list(
            trials.train(model, optimizer, images, labels, steps=range(100), generator=draw, penalty=penalty)
        )
        assert sum(curve[-10:]) < 0.7 * sum(curve[:10])
        sizes.append(sum(w.square().sum().item() for w in model.parameters()))
    assert sizes[1] < 0.9 * sizes[0]


def test_the_penalty_is_torchs_weight_decay():
    """torch's `weight_decay` of SGD adds λw to the gradient: the gradient of λ/2 ‖w‖²."""
    (images, labels), _ = trials.digits(torch.device("cpu"))
    ends = []
    for penalty, decay in ((0.1, 0.0), (0.0, 0.1)):
        model = trials.perceptron(0).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, weight_decay=decay)
        draw = torch.Generator().manual_seed(0)
        for _ in trials.train(
            model, optimizer, images.double(), labels, steps=range(5), generator=draw, penalty=penalty
        ):
            pass
        ends.append([w.detach() for w in model.parameters()])
    for mine, theirs in zip(*ends, strict=True):
        assert_close(mine, theirs, rtol=0, atol=1e-14)


def test_a_row_of_tensors_becomes_lists():
    row = [torch.tensor(float(i)) for i in range(6)]
    assert [[int(t) for t in part] for part in trials.lists(3, row)] == [[0, 1], [2, 3], [4, 5]]


def test_training_that_misses_its_target_says_so():
    bench = Bench(device=torch.device("cpu"), dtype=torch.float32, budget="smoke")
    makers = {("slow", "naive"): (partial(SGD, lr=1e-6), 64), ("fast", "paper"): (partial(SGD, lr=0.5), 64)}
    case = trials.quality_case(bench, makers, target=1.5, limit=100)
    inputs = case.inputs(torch.Generator().manual_seed(0))
    assert [variant.call(*inputs).item() for variant in case.variants] == [False, True]


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(sgd)
    assert record.curves["excess loss"].keys() == sgd.SCHEDULES.keys()
    assert [claim["verdict"] for claim in record.claims] == ["not judged", "not judged"]


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(sgd, seed=1), run_experiment(sgd, seed=2)
    assert first.curves["excess loss"] != other.curves["excess loss"]


@pytest.mark.parametrize(
    "paper", [sgd, rmsprop, adam, adamw, schedule_free], ids=lambda paper: paper.__name__
)
def test_the_family_computes_in_the_precision_that_is_asked_for(run_experiment, paper):
    """In double precision there are losses that single precision cannot hold."""
    curves = run_experiment(paper, dtype=torch.float64).curves.values()
    losses = [loss for arms in curves for curve in arms.values() for _, loss in curve]
    assert torch.tensor(losses, dtype=torch.float64).float().tolist() != losses


@pytest.mark.parametrize(("arm", "diverges"), [("0.05", (True, True)), ("1/t", (True, False))])
def test_schedules_are_what_the_conditions_say(arm, diverges):
    """A sum diverges when ten times as many terms add as much again as a thousand did."""
    for power, expected in zip((1, 2), diverges, strict=True):
        steps = [sgd.SCHEDULES[arm](t) ** power for t in range(100_000)]
        assert (sum(steps[10_000:]) > 0.3 * sum(steps[:10_000])) == expected


def test_the_rules_can_fail():
    no_floor = {
        "floor of 0.05 / floor of 0.025": 1.0,
        "floor of 0.025 / floor of 0.0125": 1.0,
        "end of 1/t / lowest floor": 1.2,
    }
    assert sgd.FLOOR.judge(no_floor) == "not reproduced"
    assert sgd.TOO_FAST.judge({"end of 1/t² / end of 1/t": 0.9}) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(sgd)) == 2
