"""The two-loop recursion compared with the matrix that it represents, and the optimiser with torch's and
scipy's.
"""

from __future__ import annotations

import importlib
from functools import partial
from statistics import geometric_mean
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import lbfgs
from readtrack.papers.bfgs import bfgs_update
from readtrack.papers.bfgs.experiment import scipys, walk
from readtrack.papers.bfgs.rivals import HestenesStiefel
from readtrack.papers.lbfgs import LBFGS, two_loop
from readtrack.papers.lbfgs.benchmark import as_written, compact, history, stacked, two_loops
from readtrack.papers.lbfgs.experiment import FirstScale, ScaleAlone, TenthScale, minimise, read
from readtrack.papers.newton.problems import logistic_problem, rosenbrock_problem
from readtrack.plugin import AtLeast
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

EXPERIMENT = importlib.import_module("readtrack.papers.lbfgs.experiment")  # the hook has the same name


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def explicit(s: list[torch.Tensor], y: list[torch.Tensor], gamma: float | torch.Tensor) -> torch.Tensor:
    H = gamma * torch.eye(len(s[0])).to(s[0])
    for a, b in zip(s, y, strict=True):
        H = bfgs_update(H, a, b)
    return H


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 1), (7, 3), (6, 9)])
@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_two_loops_are_the_product_with_the_explicit_matrix(n: int, m: int, gamma: float) -> None:
    gradient, s, y = history(generator(), n=n, m=m)
    gradient, s, y = gradient.double(), [v.double() for v in s], [v.double() for v in y]
    before = gradient.clone()
    assert_close(two_loop(gradient, s, y, gamma), explicit(s, y, gamma) @ gradient, rtol=1e-11, atol=1e-12)
    assert torch.equal(gradient, before)


def test_without_pairs_the_product_is_a_scale() -> None:
    assert_close(two_loop(torch.ones(3), [], [], 2.0), 2 * torch.ones(3))


def test_all_forms_of_the_product_agree() -> None:
    gradient, s, y = history(generator(), n=12, m=5)
    gradient, s, y = gradient.double(), [v.double() for v in s], [v.double() for v in y]
    ours = two_loops(gradient, s, y)
    assert_close(ours, as_written(gradient, s, y), rtol=1e-11, atol=1e-12)
    assert_close(ours, compact(*stacked(gradient, s, y)), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("scaled", [True, False])
def test_on_a_walk_every_direction_matches_the_matrix_of_the_last_pairs(scaled: bool) -> None:
    problem = rosenbrock_problem(6, generator())
    w = nn.Parameter(problem.start.clone())
    optimizer = LBFGS([w], iterations=1, pairs=4, scaled=scaled)
    steps, changes = [], []
    for k in range(9):
        x, g = w.detach().clone(), torch.func.grad(problem.loss)(w.detach())
        optimizer.step(problem.closure(w))
        steps.append(w.detach() - x)
        changes.append(torch.func.grad(problem.loss)(w.detach()) - g)
        s, y = steps[-4:], changes[-4:]
        gamma = (s[-1] @ y[-1]) / (y[-1] @ y[-1]) if scaled else 1.0
        gradient = torch.randn(6, generator=generator(k), dtype=torch.float64)
        expected = -explicit(s, y, gamma) @ gradient
        assert_close(optimizer.direction(gradient), expected, rtol=1e-9, atol=1e-12)
        assert len(optimizer.memory["s"]) == min(k + 1, 4)


def test_the_minimum_matches_scipys_and_torchs() -> None:
    pytest.importorskip("scipy")
    problem = logistic_problem(generator(2))
    (theirs,) = scipys(problem, 500, ("L-BFGS-B",))
    ours = walk(problem, LBFGS, most=500)
    assert ours.arrived
    assert ours.trace[-1].loss == pytest.approx(theirs[3], rel=1e-9)
    assert ours.evaluations <= 1.5 * theirs[2]
    places = []
    for make in (LBFGS, torch.optim.LBFGS):
        w = nn.Parameter(problem.start.clone())
        settings = (
            {"iterations": 200, "tolerance": 1e-10}
            if make is LBFGS
            else {
                "max_iter": 200,
                "tolerance_grad": 1e-10,
                "tolerance_change": 0.0,
                "line_search_fn": "strong_wolfe",
            }
        )
        make([w], **settings).step(problem.closure(w))
        places.append(w.detach())
    assert_close(*places, rtol=1e-6, atol=1e-8)


def test_a_step_continues_from_a_checkpoint() -> None:
    problem = rosenbrock_problem(4, generator())
    whole, parts, again = (nn.Parameter(problem.start.clone()) for _ in range(3))
    LBFGS([whole], iterations=10).step(problem.closure(whole))
    first = LBFGS([parts], iterations=5)
    first.step(problem.closure(parts))
    again.data.copy_(parts.data)
    second = LBFGS([again], iterations=5)
    second.load_state_dict(first.state_dict())
    second.step(problem.closure(again))
    assert_close(again, whole)


def test_defaults() -> None:
    w = [nn.Parameter(torch.ones(1))]
    (group,) = LBFGS(w).param_groups
    settings = {name: value for name, value in group.items() if name != "params"}
    assert settings == {
        "iterations": 20, "tolerance": 1e-8, "c1": 1e-4, "c2": 0.9, "pairs": 10, "scaled": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match="at least one"):
        LBFGS(w, pairs=0)


def test_each_problem_is_minimised_with_each_number_of_pairs(part_of_run) -> None:
    world = {name: rosenbrock_problem(n, generator()) for name, n in (("short", 2), ("long", 4))}
    at, used = Trial(Workshop(part_of_run(), world), Work(arm="any"), arm="any"), []

    def make(weights: Any, **settings: Any) -> LBFGS:
        used.append(settings["pairs"])
        return LBFGS(weights, **settings)

    _, walks = minimise(at, make, None, pairs=(1, 2), most=200)
    assert walks.keys() == {(name, kept) for name in world for kept in (1, 2)}
    assert used == [1, 1, 2, 2]
    found = read(at, Sweep(walks, None, {}), title="any")
    evaluations = [one.evaluations for one in walks.values()]
    assert found == {"evaluations": pytest.approx(geometric_mean(evaluations)), "share solved": 1}
    _, few = minimise(at, partial(LBFGS, pairs=3), None, most=1)
    assert few.keys() == {(name, 0) for name in world}
    found = read(at, Sweep(few, None, {}), title="any")
    assert isinstance(found["evaluations"], AtLeast)
    assert found["share solved"] == 0


def test_the_arms_differ_only_in_their_scale(comparisons) -> None:
    scales, _ = comparisons(lbfgs)
    kinds = {name: arm.make for name, arm in scales.arms.items()}
    unscaled = kinds.pop("no scale")
    assert kinds == {"newest pair's scale": LBFGS, "first pair's scale": FirstScale}
    assert (unscaled.func, unscaled.keywords) == (LBFGS, {"scaled": False})
    assert digest(EXPERIMENT) == "67a6c4937fa3"


def values(record) -> dict[str, float]:
    return {name: value for claim in record.claims for name, value in claim["values"].items()}


def test_the_experiment_and_its_breaks(run_experiment) -> None:
    plain = values(run_experiment(lbfgs))
    assert plain["numbers kept, L-BFGS / BFGS"] == 10 / 20
    for name in ("a tenth of the scale", "conjugate gradients", "Hestenes-Stiefel"):
        broken = values(run_experiment(lbfgs, broken=name))
        assert all(broken[metric] != plain[metric] for metric in broken if "evaluations" in metric)


def test_a_rival_has_hestenes_and_stiefels_factor_and_its_own_search() -> None:
    optimizer = EXPERIMENT.hestenes_stiefel([nn.Parameter(torch.ones(1))], pairs=3, iterations=7)
    assert type(optimizer) is HestenesStiefel
    assert (optimizer.defaults["c2"], optimizer.defaults["iterations"]) == (0.6, 7)


@pytest.mark.parametrize(("kind", "which"), [(FirstScale, "first"), (TenthScale, "tenth"), (LBFGS, "newest")])
def test_each_scale_is_computed_from_the_pair_in_its_name(kind, which: str) -> None:
    problem = rosenbrock_problem(6, generator())
    w = nn.Parameter(problem.start.clone())
    optimizer, gammas = kind([w], iterations=1, pairs=3), []
    for _ in range(6):
        optimizer.step(problem.closure(w))
        s, y = optimizer.memory["s"], optimizer.memory["y"]
        gammas.append((s[-1] @ y[-1]) / (y[-1] @ y[-1]))
        optimizer.direction(torch.ones(6, dtype=torch.float64))
    expected = {"first": gammas[0], "tenth": gammas[-1] / 10, "newest": gammas[-1]}[which]
    assert_close(optimizer.scale(optimizer.memory["s"], optimizer.memory["y"]), expected)


def test_the_scale_alone_is_a_step_along_the_gradient() -> None:
    problem = rosenbrock_problem(6, generator())
    w = nn.Parameter(problem.start.clone())
    optimizer = ScaleAlone([w], iterations=3, pairs=1)
    optimizer.step(problem.closure(w))
    gradient = torch.randn(6, dtype=torch.float64)
    direction = optimizer.direction(gradient)
    assert_close(direction / gradient, (direction / gradient)[:1].expand(6))
    assert (direction / gradient < 0).all()


def test_the_benchmark(check_benchmark) -> None:
    check_benchmark(lbfgs, tolerance=1e-8)
