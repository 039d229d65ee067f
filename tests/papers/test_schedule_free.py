"""Schedule-Free compared with its authors' package: with the reference classes, which store all three
sequences, and with the classes that store two.
"""

from __future__ import annotations

import importlib
import math
from copy import deepcopy
from functools import partial

import pytest
import schedulefree
import torch
from schedulefree.adamw_schedulefree_reference import AdamWScheduleFreeReference
from schedulefree.sgd_schedulefree_reference import SGDScheduleFreeReference
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import schedule_free
from readtrack.papers.adamw import AdamW
from readtrack.papers.momentum import Momentum
from readtrack.papers.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from readtrack.papers.sgd import SGD
from readtrack.papers.sgd.trials import Problem, cosine
from readtrack.runs.table import Table
from readtrack.runs.trial import Trial, Work, Workshop

experiment = importlib.import_module("readtrack.papers.schedule_free.experiment")


class OneEach:
    """A separate optimiser of the package for each weight, which steps only if the weight has a gradient.
    The package counts steps per group, ours per weight.
    """

    def __init__(self, make, groups):
        weights = [w for group in groups for w in group["params"]]
        self.optimizers = [make([w]) for w in weights]
        self.param_groups = [optimizer.param_groups[0] for optimizer in self.optimizers]
        self.train()

    def train(self):
        for optimizer in self.optimizers:
            optimizer.train()

    def eval(self):
        for optimizer in self.optimizers:
            optimizer.eval()

    def step(self):
        for optimizer in self.optimizers:
            if optimizer.param_groups[0]["params"][0].grad is not None:
                optimizer.step()


def assert_same_means(optimizers):
    weights = []
    for optimizer in optimizers:
        optimizer.eval()
        weights.append([w for group in optimizer.param_groups for w in group["params"]])
    for mine, theirs in zip(*weights, strict=True):
        assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0, 30])
@pytest.mark.parametrize("reference", [SGDScheduleFreeReference, schedulefree.SGDScheduleFree])
def test_every_step_with_sgd_is_the_authors(assert_same_walk, reference, warmup, weight_decay):
    ours = partial(ScheduleFreeSGD, lr=0.03, beta=0.9, warmup=warmup, weight_decay=weight_decay)
    theirs = partial(reference, lr=0.03, momentum=0.9, warmup_steps=warmup, weight_decay=weight_decay)
    assert_same_means(assert_same_walk(ours, partial(OneEach, theirs)))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("warmup", "betas"), [(0, (0.9, 0.999)), (30, (0.95, 0.99))])
@pytest.mark.parametrize("reference", [AdamWScheduleFreeReference, schedulefree.AdamWScheduleFree])
def test_every_step_with_adamw_is_the_authors(assert_same_walk, reference, warmup, betas, weight_decay):
    settings = {"lr": 0.01, "betas": betas, "weight_decay": weight_decay}
    ours = partial(ScheduleFreeAdamW, warmup=warmup, **settings)
    theirs = partial(reference, warmup_steps=warmup, **settings)
    assert_same_means(assert_same_walk(ours, partial(OneEach, theirs)))


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


def test_the_mean_is_over_all_z():
    """With a constant learning rate cₜ = 1/t, so x is the plain mean of z₁ .. zₜ."""
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


def test_a_checkpoint_knows_whether_it_holds_the_mean():
    w = torch.ones(4, dtype=torch.float64, requires_grad=True)
    optimizer = ScheduleFreeAdamW([w])
    walk(optimizer, w, 3)
    before = w.detach().clone()
    optimizer.eval()
    again = w.detach().clone().requires_grad_()
    resumed = ScheduleFreeAdamW([again])
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    with pytest.raises(RuntimeError, match=r"call train\(\)"):
        walk(resumed, again, 1)
    resumed.train()
    assert_close(again.detach(), before, rtol=0, atol=1e-14)


def test_weights_that_began_at_other_rates_have_means_of_their_own():
    """cₜ = lrₜ² / Σ lrᵢ² over the steps of each weight. If the learning rate is halved before the second
    weight begins, the first's mean weights its z by 1 and 1/4, and the second's has a single z.
    """
    first, second = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = ScheduleFreeSGD([first, second], lr=1.0)
    first.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    z1 = optimizer.state[first]["z"].item()
    optimizer.param_groups[0]["lr"] = 0.5
    second.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    z2 = optimizer.state[first]["z"].item()
    optimizer.eval()
    assert first.item() == pytest.approx((z1 + z2 / 4) / 1.25)
    assert second.item() == pytest.approx(optimizer.state[second]["z"].item())


def test_the_defaults_are_the_authors(assert_same_walk):
    settings = schedulefree.AdamWScheduleFree([torch.ones(1, requires_grad=True)]).param_groups[0]
    ours = ScheduleFreeAdamW([torch.ones(1)]).param_groups[0]
    assert (ours["lr"], (ours["beta"], ours["beta2"])) == (settings["lr"], settings["betas"])
    assert (ours["eps"], ours["warmup"], ours["weight_decay"]) == (1e-8, 0, 0.0)
    assert ScheduleFreeSGD([torch.ones(1)], lr=1.0).param_groups[0]["beta"] == 0.9


# Experiment and benchmark


COSINES = {f"cosine@{share}" for share in experiment.STOPS}


def test_the_experiment_runs(run_experiment):
    record = run_experiment(schedule_free)
    assert record.curves.keys() >= {"training loss, SGD", "training loss, AdamW"}
    for name in ("SGD", "AdamW"):
        curves = record.curves[f"training loss, {name}"]
        assert curves.keys() == {"schedule-free", "constant rate", *COSINES}
        assert [curves[f"cosine@{share}"][-1][0] for share in experiment.STOPS] == [2, 6, 18]


@pytest.mark.slow
def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(schedule_free, seed=1), run_experiment(schedule_free, seed=2)
    assert first.curves != other.curves


@pytest.fixture
def compared(run_experiment, monkeypatch):
    """The arguments of each comparison."""
    seen = {}
    monkeypatch.setattr(experiment, "compare", lambda run, claim, name, **given: seen.update({name: given}))
    with pytest.raises(AssertionError):  # no claim is stated
        run_experiment(schedule_free)
    return seen


def test_the_arms_match_their_names(compared):
    """The control has its momentum, its warm-up and a cosine to zero; each break removes its ingredient."""
    w = torch.ones(1)
    sgd, adam = compared["SGD"], compared["AdamW"]
    heavy, adamw = sgd["theirs"]([w], lr=0.1), adam["theirs"]([w], lr=0.1)
    assert type(heavy) is Momentum
    assert heavy.param_groups[0]["momentum"] == 0.9
    assert type(adamw) is AdamW
    assert adamw.param_groups[0]["weight_decay"] == 0.0
    for given, kind in ((sgd, ScheduleFreeSGD), (adam, ScheduleFreeAdamW)):
        optimizer, schedule = given["ours"]([w], 0.1, 9)
        assert (type(optimizer), optimizer.param_groups[0]["warmup"], schedule) == (kind, 20, None)
        near, _ = given["breaks"]["gradients at z"]([w], 0.1, 9)
        assert (type(near), near.param_groups[0]["beta"]) == (kind, 0.01)
    plain, _ = sgd["breaks"]["no mean"]([w], 0.1, 9)
    assert type(plain) is SGD
    plain, _ = adam["breaks"]["no mean"]([w], 0.1, 9)
    assert plain.param_groups[0]["betas"] == (0.0, 0.999)
    for given, kind in ((sgd, Momentum), (adam, AdamW)):
        rival, schedule = given["breaks"]["averaged weights"]([w], 0.1, 9)
        assert isinstance(rival, kind)
        assert rival.memories[-1] == "mean"
        assert [schedule.lr_lambdas[0](t) for t in (0, 19, 20, 5000)] == [0.05, 1, 1, 1]


def test_every_arm_trains_at_the_rates_of_the_grid(compared):
    """The checks cannot compare the arms' learning rates, because the arms are declared to differ in them."""
    assert digest(experiment) == "a19c1ac7a67c"
    grids = {"SGD": [0.1 * 2**i for i in range(7)], "AdamW": [0.0125 * 2**i for i in range(5)]}
    assert {name: list(given["rates"]) for name, given in compared.items()} == grids


def test_the_arms_of_both_comparisons(comparisons):
    kinds = (ScheduleFreeSGD, Momentum), (ScheduleFreeAdamW, AdamW)
    for given, (ours, theirs) in zip(comparisons(schedule_free), kinds, strict=True):
        built = {name: arm.make([torch.ones(1)], 0.1, 100) for name, arm in given.arms.items()}
        built |= {name: arm.make([torch.ones(1)], 0.1, 100) for name, arm in given.yardsticks.items()}
        assert {name: type(optimizer) for name, (optimizer, _) in built.items()} == {
            "schedule-free": ours,
            "cosine": theirs,
            "constant rate": theirs,
        }
        assert {optimizer.defaults["lr"] for optimizer, _ in built.values()} == {0.1}
        assert built["schedule-free"][1] is None
        assert [built["cosine"][1].lr_lambdas[0](t) for t in (19, 99)] == pytest.approx(
            [0.914, 2.5e-4], rel=0.02
        )
        assert [built["constant rate"][1].lr_lambdas[0](t) for t in (19, 99)] == [1, 1]


def test_the_cosine_goes_to_zero_after_its_warmup():
    w = torch.ones(1)
    optimizer, schedule = experiment.scheduled(Momentum)([w], 0.5, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        w.grad = torch.zeros(1)
        optimizer.step()
        schedule.step()
    assert rates == [0.5 * cosine(t, 100, warmup=20) for t in range(100)]


def test_the_rival_is_its_optimiser_and_keeps_the_mean_that_is_described():
    ours, plain = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    averaging, reference = experiment.averaged(Momentum)([ours], lr=0.1), Momentum([plain], lr=0.1)
    mean = torch.ones(3, dtype=torch.float64)
    for t in range(1, 30):
        ours.grad = torch.randn(3, dtype=torch.float64)
        plain.grad = ours.grad.clone()
        averaging.step()
        reference.step()
        assert_close(ours, plain)
        mean = mean + 9 / (t + 8) * (plain.detach() - mean)
        averaging.eval()
        assert_close(ours.detach(), mean)
        averaging.train()


def test_two_draws_choose_and_a_third_is_reported(part_of_run, monkeypatch):
    seen = []
    monkeypatch.setattr(
        experiment,
        "walk",
        lambda at, build, rate, *, ninth, draw: (
            seen.append(draw) or {"all": (4.0 if draw == "choose" else 1.0, 0.5)}
        ),
    )
    world = experiment.World(Built(), (torch.ones(1),) * 2, (torch.ones(1),) * 2)
    at = Trial(Workshop(part_of_run(), world), Work(arm="a"), arm="a")
    score, _ = experiment.attempt(at, experiment.constant(SGD), 0.1, ninth=2)
    assert score == pytest.approx(math.log(4) / 2)
    assert seen == ["choose", "choose again"]
    at.again = True
    experiment.attempt(at, experiment.constant(SGD), 0.1, ninth=2)
    assert seen[2:] == ["judge"]


class Built(Problem):
    def __init__(self):
        super().__init__("", lambda: torch.nn.Linear(1, 1), torch.ones(1, 1), torch.zeros(1).long())


class MeanOfZero(SGD):
    """An optimiser whose mean of the weights is 0."""

    def eval(self) -> None:
        weights = [w for group in self.param_groups for w in group["params"]]
        self.kept = [(w, w.detach().clone()) for w in weights]
        for w in weights:
            w.detach().zero_()

    def train(self) -> None:
        for w, kept in self.kept:
            w.detach().copy_(kept)


def test_losses_are_those_of_the_mean(part_of_run):
    rows, labels = torch.eye(2), torch.tensor([0, 1])
    problem = Problem("two classes", partial(torch.nn.Linear, 2, 2), rows, labels)
    world = experiment.World(problem, (rows, labels), (rows, labels))
    at = Trial(Workshop(part_of_run(), world), Work(arm="a"), arm="a")
    at.start()
    found = experiment.walk(at, lambda w, lr, total: (MeanOfZero(w, lr=lr), None), 0.5, ninth=2, draw="judge")
    assert found == {share: (pytest.approx(math.log(2)), 0.5) for share in experiment.STOPS}
    assert len(at.work.losses) == 18
    assert at.work.losses[-1] < 0.6  # training goes on from the weights before `eval`


def test_the_constant_rate_may_fail_at_one_time():
    constant, cosine = (dict.fromkeys(experiment.STOPS, loss) for loss in (0.2, 0.1))
    constant["all"] = 0.3
    rows = {f"cosine@{share}": {f"loss after {share}": loss} for share, loss in cosine.items()}
    rows["constant rate"] = {f"loss after {share}": loss for share, loss in constant.items()}
    (found,) = experiment.constant_over_cosine(Table(rows=rows))[""].values()
    assert found == pytest.approx(3)


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(schedule_free)) == 2
