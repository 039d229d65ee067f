"""The one-cycle schedule at its corners and compared with torch's scheduler, and the arms' schedules."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.claims import AtLeast
from readtrack.papers import super_convergence as module
from readtrack.papers.batchnorm.convolutions import digits
from readtrack.papers.super_convergence import OneCycle, one_cycle
from readtrack.runs.trial import Trial, Work, Workshop


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5, momentum=0.9)


@pytest.mark.parametrize("steps", [21, 41, 201])
def test_the_scheduler_matches_torchs_with_three_linear_phases(steps):
    ours, theirs = optimizer(), optimizer()
    schedule = OneCycle(ours, steps, peak=2.0)
    reference = OneCycleLR(
        theirs,
        2.0,
        total_steps=steps,
        pct_start=(0.45 * (steps - 1) + 1) / steps,
        anneal_strategy="linear",
        three_phase=True,
        div_factor=10,
        final_div_factor=100,
    )
    for step in range(steps):
        mine, other = ours.param_groups[0], theirs.param_groups[0]
        assert_close(mine["lr"], other["lr"], rtol=1e-9, atol=1e-12)
        assert_close(mine["momentum"], other["momentum"], rtol=1e-9, atol=1e-12)
        ours.step()
        theirs.step()
        if step < steps - 1:
            schedule.step()
            reference.step()


def test_its_corners_and_settings():
    assert one_cycle(0, 101, peak=3.0) == pytest.approx((0.3, 0.95))
    assert one_cycle(45, 101, peak=3.0) == pytest.approx((3.0, 0.85))
    assert one_cycle(90, 101, peak=3.0) == pytest.approx((0.3, 0.95))
    assert one_cycle(100, 101, peak=3.0) == pytest.approx((0.003, 0.95))
    assert one_cycle(0, 101, peak=3.0, start=0.5) == pytest.approx((1.5, 0.95))
    assert one_cycle(40, 101, peak=3.0, tail=0.2)[0] == pytest.approx(3.0)


def test_a_scheduler_continues_from_its_state():
    one, other = optimizer(), optimizer()
    first = OneCycle(one, 21, peak=1.0)
    for _ in range(7):
        one.step()
        first.step()
    second = OneCycle(other, 21, peak=1.0)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(one.state_dict())
    for part, schedule in ((one, first), (other, second)):
        part.step()
        schedule.step()
    assert (
        one.param_groups[0]["lr"]
        == other.param_groups[0]["lr"]
        == pytest.approx(one_cycle(8, 21, peak=1.0)[0])
    )


def test_the_schedules_of_the_arms():
    assert [module.usual(step, 100, 1.0)[0] for step in (0, 49, 50, 75)] == pytest.approx([1, 1, 0.1, 0.01])
    assert [module.cosine(step, 100, 2.0)[0] for step in (0, 50, 100)] == pytest.approx([2, 1, 0])
    assert module.cycle(45, 101, 3.0)[0] == pytest.approx(3.0)
    assert module.rise(20, 101, 3.0) == module.cycle(20, 101, 3.0)
    assert module.rise(99, 101, 3.0)[0] == pytest.approx(3.0)


def test_a_warm_up_rises_over_a_tenth_of_the_steps():
    rates = [module.warmed(step, 100, 1.0)[0] for step in (0, 9, 50)]
    assert rates == pytest.approx([0.1, module.cosine(9, 100, 1.0)[0], 0.5], rel=1e-3)


def test_a_training_of_one_step_has_the_first_rate():
    assert one_cycle(0, 1, peak=2.0) == (0.2, 0.95)


@pytest.mark.parametrize("schedule", [module.cycle, module.usual])
def test_a_training_follows_its_schedule(part_of_run, monkeypatch, schedule):
    run, followed = part_of_run(), []
    at = Trial(Workshop(run, digits(run)), Work(arm="an arm", level="T"), arm="an arm")
    descend = run.descend

    def noted(loss, optimizer, **named):
        (group,) = optimizer.param_groups
        followed.append((group["lr"], group["momentum"]))
        return descend(loss, optimizer, **named)

    monkeypatch.setattr(run, "descend", noted)
    module.train(at, schedule, 0.2, middle=5)
    assert followed == [schedule(step, 5, 0.2) for step in range(5)]


def test_the_length_for_the_same_loss_is_read_off_in_logarithms():
    losses = {0.5: 0.8, 1.0: 0.4, 2.0: 0.2}
    assert module.slower(losses, 0.4) == pytest.approx(1.0)
    assert module.slower(losses, math.sqrt(0.4 * 0.2)) == pytest.approx(math.sqrt(2))
    assert module.slower(losses, 0.9) == 0.5
    assert module.slower(losses, 0.1) == AtLeast(2.0)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(module)
    curve = record.curves["loss over the length of the training"]
    assert {arm: [step for step, _ in points] for arm, points in curve.items()} == {
        "one cycle": [1.0],
        "usual": [0.5, 1.0, 2.0, 4.0],
        "cosine": [1.0],
    }
    loss = {arm: dict(points)[1.0] for arm, points in curve.items()}
    _, against_cosine = record.claims
    values = list(against_cosine["values"].values())
    assert values[0] == pytest.approx(loss["one cycle"] / loss["cosine"], rel=1e-4)
    assert digest(module) == "53de5afcdca1"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(module)] == ["one cycle"]
