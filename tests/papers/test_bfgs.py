"""Compares the update with the formula as written and with its dual, the line search with the conditions
that it must satisfy, and the optimiser with scipy's.
"""

from __future__ import annotations

import importlib
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import bfgs
from readtrack.papers.bfgs import BFGS, bfgs_update, strong_wolfe, wide_enough
from readtrack.papers.bfgs.benchmark import by_products, pair
from readtrack.papers.bfgs.experiment import (
    CONJUGATE,
    MOSTLY_DFP,
    NO_CURVATURE,
    SEARCHES,
    STAYS_LOOSE,
    Walk,
    closing,
    geometric,
    mostly_dfp,
    scipys,
    summary,
    walk,
)
from readtrack.papers.bfgs.model import cubic_minimum
from readtrack.papers.bfgs.rivals import Conjugate, HestenesStiefel, dfp_update
from readtrack.papers.newton.model import Point
from readtrack.papers.newton.problems import Problem, logistic_problem, rosenbrock_problem
from readtrack.plugin import AtLeast, Table

EXPERIMENT = importlib.import_module("readtrack.papers.bfgs.experiment")  # the hook has the same name
GAP = "gap in iterations, loose / near-exact search"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(n: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    return tuple(t.double() for t in pair(generator(seed), n=n))


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_the_update_matches_the_formula_and_its_invariants(n: int) -> None:
    H, s, y = drawn(n)
    found = bfgs_update(H, s, y)
    assert_close(found, by_products(H, s, y), rtol=1e-11, atol=1e-12)
    assert_close(found @ y, s, rtol=1e-12, atol=1e-12)
    assert_close(found, found.mT, rtol=0, atol=1e-13)
    assert torch.linalg.eigvalsh(found)[0] > 0


def test_dfp_is_its_dual() -> None:
    H, s, y = drawn(6)
    theirs = dfp_update(H, s, y)
    assert_close(theirs @ y, s, rtol=1e-12, atol=1e-12)
    assert_close(
        torch.linalg.inv(bfgs_update(H, s, y)), dfp_update(torch.linalg.inv(H), y, s), rtol=1e-9, atol=1e-10
    )
    assert not torch.allclose(theirs, bfgs_update(H, s, y))


def test_the_cubic_through_a_cubic() -> None:
    def value(x: float) -> tuple[float, float]:
        return x**3 - 3 * x, 3 * x**2 - 3  # a minimum at 1

    for a, b in ((0.2, 3.0), (3.0, 0.2), (0.5, 0.7)):
        assert cubic_minimum(a, *value(a), b, *value(b)) == pytest.approx(1)
    assert math.isnan(cubic_minimum(0.0, 0.0, -1.0, 1.0, math.inf, 1.0))


LINES = {
    "parabola": lambda x: (x - 3).square().sum(),
    "far": lambda x: (x / 100 - 3).square().sum(),
    "steep": lambda x: (1000 * x - 3).square().sum(),
    "waves": lambda x: (x - 3).square().sum() / 20 + x.sin().sum(),
    "wall": lambda x: (1e-3 * x - (1 - x / 5).log()).sum() - 2 * x.sum(),
}


@pytest.mark.parametrize("c2", [0.9, 0.1, 0.01])
@pytest.mark.parametrize("name", LINES)
def test_the_search_meets_both_conditions(name: str, c2: float) -> None:
    loss = LINES[name]
    calls = []

    def at(x: torch.Tensor) -> Point:
        calls.append(x)
        gradient, value = torch.func.grad_and_value(loss)(x)
        return Point(x, value.item(), gradient)

    start = at(torch.zeros(1, dtype=torch.float64))
    direction = -start.gradient / start.gradient.norm()
    found = strong_wolfe(at, start, direction, c2=c2)
    assert found is not None
    slope = (direction @ start.gradient).item()
    length = (found.x @ direction).item()
    assert found.loss <= start.loss + 1e-4 * length * slope + 1e-12
    assert abs((direction @ found.gradient).item()) <= -c2 * slope
    assert len(calls) < 30


def test_a_line_without_any_fall_ends_in_nothing() -> None:
    start = Point(torch.ones(1), 1.0, torch.ones(1))
    calls = []

    def at(x: torch.Tensor) -> Point:
        calls.append(x)
        return Point(x, math.inf, torch.full((1,), math.nan))

    assert strong_wolfe(at, start, -torch.ones(1)) is None
    assert len(calls) <= 40


def test_pairs_without_positive_curvature_are_left_out() -> None:
    s = torch.tensor([1.0, 0.0])
    assert wide_enough(s, s)
    assert not wide_enough(s, -s)
    assert not wide_enough(s, torch.tensor([0.0, 1.0]))
    assert not wide_enough(s, torch.zeros(2))
    w = nn.Parameter(torch.tensor([0.1], dtype=torch.float64))
    optimizer = BFGS([w], iterations=3)
    optimizer.step(Problem("", w.detach().clone(), lambda x: x.cos().sum()).closure(w))
    assert (optimizer.memory["H"] > 0).all()


@pytest.mark.parametrize(
    "make", [partial(rosenbrock_problem, 2), partial(rosenbrock_problem, 10), logistic_problem]
)
def test_the_minimum_matches_scipys(make) -> None:
    pytest.importorskip("scipy")
    problem = make(generator(2))
    (theirs,) = scipys(problem, 500, ("BFGS",))
    ours = walk(problem, BFGS, most=500, target=1e-6)
    assert ours.arrived
    assert ours.trace[-1].loss == pytest.approx(theirs[3], rel=1e-9, abs=1e-5)
    assert ours.evaluations <= 1.5 * theirs[2]


def test_near_exact_searches_end_on_a_quadratic_after_n_steps() -> None:
    A, b, start = drawn(6)
    problem = Problem("", start, lambda x: x @ A @ x / 2 + b @ x)
    for make in (BFGS, partial(BFGS, update=dfp_update), Conjugate, HestenesStiefel):
        assert walk(problem, partial(make, c2=1e-9), most=20).iterations <= 7


def test_the_factors_of_conjugate_gradients() -> None:
    gradient, before, last = torch.randn(3, 5, generator=generator(), dtype=torch.float64)
    change = gradient - before
    direction = HestenesStiefel.factor(None, gradient, before, last) * last - gradient
    assert (direction @ change).item() == pytest.approx(0, abs=1e-12)
    found = Conjugate.factor(None, gradient, before, last)
    assert found.item() == pytest.approx(((gradient @ change) / before.square().sum()).item())


def test_a_step_continues_where_the_last_one_ended_and_is_saved_in_a_checkpoint() -> None:
    problem = rosenbrock_problem(4, generator())
    whole, parts, again = (nn.Parameter(problem.start.clone()) for _ in range(3))
    BFGS([whole], iterations=10).step(problem.closure(whole))
    first = BFGS([parts], iterations=5)
    first.step(problem.closure(parts))
    again.data.copy_(parts.data)
    second = BFGS([again], iterations=5)
    second.load_state_dict(first.state_dict())
    second.step(problem.closure(again))
    assert_close(again, whole)
    assert first.trace[-1].evaluations == first.evaluations


def test_several_tensors_are_one_vector() -> None:
    problem = rosenbrock_problem(4, generator())
    whole = nn.Parameter(problem.start.clone())
    a, b = (nn.Parameter(part.clone()) for part in problem.start.split(2))
    BFGS([whole], iterations=8).step(problem.closure(whole))
    optimizer = BFGS([a, b], iterations=8)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = problem.loss(torch.cat([a, b]))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_close(torch.cat([a, b]), whole)


def test_defaults_and_the_control() -> None:
    w = [nn.Parameter(torch.ones(1))]
    expected = {"iterations": 20, "tolerance": 1e-8, "c1": 1e-4, "c2": 0.9}
    assert BFGS(w).defaults == expected
    assert Conjugate(w).defaults == {**expected, "c2": 0.4, "beta": True}


@pytest.mark.slow
def test_the_experiment_and_its_breaks(run_experiment) -> None:
    def values(**how) -> dict[str, float]:
        claims = run_experiment(bfgs, **how).claims
        return {name: value for claim in claims for name, value in claim["values"].items()}

    plain, loose = values(), "evaluations, DFP / BFGS, loose search"
    assert plain[loose] > 1
    assert values(broken=STAYS_LOOSE.name)[GAP] == 1
    for broken in (NO_CURVATURE, MOSTLY_DFP):
        # If neither converges, nothing can be compared.
        found = values(broken=broken.name, unreached=(loose,))
        assert found.keys() == {loose, "share solved, near-exact search, DFP"}
        assert found[loose] != plain[loose]
    curve = "evaluations, loose search"
    ours, theirs = (run_experiment(bfgs, broken=name).curves[curve] for name in ("", CONJUGATE.name))
    assert ours["DFP"] == theirs["DFP"]
    assert ours["BFGS"] != theirs["BFGS"]
    rival = values(broken=CONJUGATE.name)
    assert rival.keys() == plain.keys()
    assert all(rival[name] != plain[name] for name in rival if not name.startswith("share"))


def test_a_near_miss_is_of_broydens_class() -> None:
    """The secant equation holds, and 99 % of the update is DFP's."""
    H, s, y = (
        torch.eye(3).double(),
        torch.tensor([1.0, 2.0, 0.5]).double(),
        torch.tensor([2.0, 1.0, 1.0]).double(),
    )
    found = mostly_dfp(H, s, y)
    assert_close(found @ y, s)
    assert_close(100 * (found - dfp_update(H, s, y)), bfgs_update(H, s, y) - dfp_update(H, s, y))


def test_a_mean_over_problems_is_a_lower_limit_where_one_has_not_arrived() -> None:
    walks = [Walk(True, 3, 4, ()), Walk(True, 3, 9, ())]
    assert geometric(walks, "evaluations") == pytest.approx(6)
    assert geometric([*walks, Walk(False, 3, 6, ())], "evaluations") == AtLeast(pytest.approx(6))


def test_a_search_is_summarised_by_its_evaluations_and_iterations() -> None:
    assert summary([Walk(True, 2, 7, ())]) == {
        "evaluations": pytest.approx(7), "iterations": pytest.approx(2), "share solved": 1,
    }  # fmt: skip
    walks = [Walk(True, 2, 7, ()), Walk(False, 2, 7, ())]
    assert summary(walks)["share solved"] == 0.5
    assert isinstance(summary(walks)["iterations"], AtLeast)


@pytest.mark.parametrize(("loose", "gap"), [(60.0, 2.5), (AtLeast(60.0), AtLeast(2.5))])
def test_the_gap_is_the_ratio_with_a_loose_search_over_the_ratio_with_a_near_exact_one(loose, gap) -> None:
    table = Table()
    table.add(
        {
            "DFP": {"iterations, loose search": loose, "iterations, near-exact search": 12.0},
            "BFGS": {"iterations, loose search": 20.0, "iterations, near-exact search": 10.0},
        }
    )
    assert closing(table) == {"": {GAP: gap}}


def test_the_searches_and_the_numbers_of_the_experiment() -> None:
    assert SEARCHES["near-exact"] < SEARCHES["loose"]
    assert digest(EXPERIMENT) == "c95593cd50d5"


def test_the_benchmark(check_benchmark) -> None:
    check_benchmark(bfgs, tolerance=1e-8)
