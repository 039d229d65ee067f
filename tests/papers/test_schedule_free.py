"""Schedule-Free against its authors' package: the reference classes, which keep all three sequences, and the
ones that keep two."""

from __future__ import annotations

import math
from functools import partial

import pytest
import schedulefree
import torch
from schedulefree.adamw_schedulefree_reference import AdamWScheduleFreeReference
from schedulefree.sgd_schedulefree_reference import SGDScheduleFreeReference
from torch.testing import assert_close

from readtrack.papers import schedule_free
from readtrack.papers.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD


def training(make):
    """The package's optimisers begin out of training."""

    def made(weights):
        optimizer = make(weights)
        optimizer.train()
        return optimizer

    return made


def assert_same_means(optimizers):
    for optimizer in optimizers:
        optimizer.eval()
    for mine, theirs in zip(*(o.param_groups[0]["params"] for o in optimizers), strict=True):
        assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0, 30])
@pytest.mark.parametrize("reference", [SGDScheduleFreeReference, schedulefree.SGDScheduleFree])
def test_every_step_with_sgd_is_the_authors(assert_same_walk, reference, warmup, weight_decay):
    ours = partial(ScheduleFreeSGD, lr=0.03, beta=0.9, warmup=warmup, weight_decay=weight_decay)
    theirs = partial(reference, lr=0.03, momentum=0.9, warmup_steps=warmup, weight_decay=weight_decay)
    assert_same_means(assert_same_walk(ours, training(theirs)))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("warmup", "betas"), [(0, (0.9, 0.999)), (30, (0.95, 0.99))])
@pytest.mark.parametrize("reference", [AdamWScheduleFreeReference, schedulefree.AdamWScheduleFree])
def test_every_step_with_adamw_is_the_authors(assert_same_walk, reference, warmup, betas, weight_decay):
    settings = {"lr": 0.01, "betas": betas, "weight_decay": weight_decay}
    ours = partial(ScheduleFreeAdamW, warmup=warmup, **settings)
    theirs = training(partial(reference, warmup_steps=warmup, **settings))
    assert_same_means(assert_same_walk(ours, theirs))


def walk(optimizer, w, steps):
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        w.grad = torch.randn(w.shape, dtype=w.dtype, generator=draw)
        optimizer.step()


def test_evaluating_in_between_changes_nothing():
    ends = []
    for looks in (False, True):
        w = torch.ones(4, dtype=torch.float64, requires_grad=True)
        optimizer = ScheduleFreeSGD([w], lr=0.1)
        for _ in range(5):
            walk(optimizer, w, 3)
            if looks:
                optimizer.eval()
                optimizer.eval()
                optimizer.train()
        ends.append(w.detach())
    assert_close(*ends, rtol=0, atol=1e-14)


def test_the_mean_is_that_of_all_z():
    """With one learning rate cₜ = 1/t: x is the plain mean of z₁ .. zₜ."""
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer, zs = ScheduleFreeSGD([w], lr=0.1), []
    draw = torch.Generator().manual_seed(0)
    for _ in range(10):
        w.grad = torch.randn(4, dtype=torch.float64, generator=draw)
        optimizer.step()
        zs.append(optimizer.state[w]["z"].clone())
    optimizer.eval()
    assert_close(w.detach(), torch.stack(zs).mean(0), rtol=0, atol=1e-14)


def test_a_step_at_the_mean_is_refused():
    w = torch.ones(2, requires_grad=True)
    optimizer = ScheduleFreeAdamW([w])
    walk(optimizer, w, 2)
    optimizer.eval()
    with pytest.raises(RuntimeError, match=r"call train\(\)"):
        walk(optimizer, w, 1)


@pytest.mark.parametrize("beta", [0.0, -0.5, 1.5])
def test_a_beta_that_hides_the_mean_is_refused(beta):
    with pytest.raises(ValueError, match="above 0"):
        ScheduleFreeSGD([torch.ones(2, requires_grad=True)], lr=0.1, beta=beta)


# Experiment and benchmark


def test_the_cosine_falls_from_one_to_zero_after_its_warmup():
    shares = [schedule_free.cosine(t, 100, warmup=20) for t in range(100)]
    assert shares[0] == pytest.approx(1 / 20)
    assert shares[50] == pytest.approx(0.5)
    assert max(shares) < 1
    assert shares[-1] == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)
    assert schedule_free.cosine(0, 100, warmup=0) == 1


def test_the_experiment_runs(run_experiment):
    record = run_experiment(schedule_free)
    assert record.curves.keys() == {"training loss, SGD", "training loss, AdamW"}
    assert record.curves.keys() == {"training loss, SGD", "training loss, AdamW"}


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(schedule_free, seed=1), run_experiment(schedule_free, seed=2)
    assert first.curves != other.curves


def test_the_rules_can_fail():
    names = [bound.metric for bound in schedule_free.WITH_SGD.rule]
    assert schedule_free.WITH_SGD.judge(dict.fromkeys(names, 1.0)) == "reproduced"
    assert schedule_free.WITH_SGD.judge(dict.fromkeys(names, 1.0) | {names[1]: 1.5}) == "weak"
    assert schedule_free.WITH_ADAMW.judge(dict.fromkeys(names, 1.0) | {names[2]: 9.0}) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(schedule_free)) == 2
