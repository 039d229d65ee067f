"""Compares the evaluations and iterations of BFGS and DFP, with a loose and a near-exact line search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import nn

from readtrack.plugin import (
    Arm,
    AtLeast,
    Bound,
    Break,
    Claim,
    Figure,
    NoNull,
    Run,
    Sweep,
    Table,
    Trial,
    at_least,
    at_most,
    hookimpl,
)

from ..newton.model import Matrix, Minimizer, Progress, Vector
from ..newton.problems import Problem, logistic_problem, network_problem, rosenbrock_problem
from .model import BFGS, bfgs_update
from .rivals import Conjugate, dfp_update

NO_CURVATURE = Break(
    "no curvature",
    "BFGS receives the step in place of the gradient's change, so its model stays the identity.",
)
MOSTLY_DFP = Break(
    "mostly DFP",
    "The update is the member of Broyden's class with 1 % of BFGS's update and 99 % of DFP's.",
    "near miss",
)
STAYS_LOOSE = Break(
    "search stays loose", "The near-exact search uses the loose search's constant.", "near miss"
)
CONJUGATE = Break(
    "conjugate gradients",
    "The optimiser is nonlinear conjugate gradients (c2 = 0.4), which stores no matrix.",
    "rival",
)
PROBLEMS = (
    "The counts are geometric means over three problems, whose starting points and digits depend on the "
    "seed. The problems are Rosenbrock's function (n = 10) and two logistic regressions on a pair of "
    "digits, one with pixel values from 0 to 16 and one with values from 0 to 1. A minimisation ends when "
    "the gradient's norm is a millionth of the initial norm, or after 800 iterations. The 1970 papers use "
    "other test functions and line searches, and Fletcher's program switches between the two updates. "
)

LOOSE = Claim(
    name="evaluations with a loose search",
    sentence="With a loose line search, BFGS needs at most a third of the function evaluations that the "
    "update of Davidon, Fletcher and Powell (DFP) needs.",
    paper=Figure(
        "The line search is no longer needed, and tests of a program gave encouraging results.",
        where="Fletcher's abstract",
        read="abstract",
    ),
    rule=(
        at_least(
            "evaluations, loose search",
            "DFP",
            3.0,
            over="BFGS",
            toward=1.0,
            called="evaluations, DFP / BFGS, loose search",
        ),
    ),
    control="DFP's update in the same program, with the same initial scale, line search (c2 = 0.9), "
    "starting points and stopping rule",
    control_arm="DFP",
    control_reaches=(at_least("share solved, near-exact search", "DFP", 1.0),),
    breaks=(NO_CURVATURE, MOSTLY_DFP, CONJUGATE),
    chosen_on=(0, 1),
    deviations=PROBLEMS
    + "The claim is the papers' common argument, not one of their tables. With the search that suits DFP "
    "best (c2 = 0.01), DFP needs about twice the evaluations of BFGS with a loose search, not six times as "
    "many. Conjugate gradients in place of BFGS also pass, with ratios of 6.8 and 6.1 on seeds 0 and 1. The "
    "ratios for BFGS are 7.2 and 6.1. A loose search slows down DFP, but neither BFGS nor conjugate "
    "gradients.",
    headline=True,
    history=(
        'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bound). There was no rival.',
    ),
)

CLOSES = Claim(
    name="iterations with near-exact searches",
    sentence="With a near-exact line search, DFP takes at most 1.5 times as many iterations as BFGS, and "
    "the gap between them is at most half the gap with a loose search.",
    paper=Figure(
        "With exact searches all updates of Broyden's class take the same path (Dixon 1972).",
        read="secondary",
    ),
    rule=(
        at_most(
            "iterations, near-exact search",
            "DFP",
            1.5,
            over="BFGS",
            called="iterations, DFP / BFGS, near-exact search",
        ),
        Bound("gap in iterations, loose / near-exact search", ">=", 2.0, direction=1.0, ratio=True),
    ),
    control="DFP in the same program. For the gap, both updates are also run with c2 = 0.9",
    control_arm="DFP",
    breaks=(STAYS_LOOSE, CONJUGATE),
    chosen_on=(0, 1),
    deviations=PROBLEMS + "The near-exact search has c2 = 0.01. Conjugate gradients in place of BFGS also "
    "pass, because the first bound has only one side. On seeds 7101 and 7102, DFP takes 0.36 and 0.41 times "
    "as many iterations as conjugate gradients with the near-exact search, and the gap is at least 29 and "
    "20. L-BFGS with five pairs agrees with DFP about as closely as BFGS does: the ratios are 1.08 and "
    "1.05, and those of BFGS are 0.94 and 1.12.",
    history=(
        'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bounds). There was no rival.',
    ),
)


@dataclass(frozen=True)
class Walk:
    """Result of a minimisation: whether it converged, its iterations and evaluations, and its progress."""

    arrived: bool
    iterations: int
    evaluations: int
    trace: Sequence[Progress]


def walk(problem: Problem, make: Callable[..., Minimizer], *, most: int, target: float = 1e-6) -> Walk:
    """Minimise until the gradient's norm is `target` times the initial norm."""
    w = nn.Parameter(problem.start.clone())
    aim = target * torch.func.grad(problem.loss)(problem.start).norm().item()
    optimizer = make([w], iterations=most, tolerance=aim)
    optimizer.step(problem.closure(w))
    trace = optimizer.trace
    return Walk(trace[-1].gradient <= aim, len(trace) - 1, optimizer.evaluations, trace)


def geometric(walks: Sequence[Walk], count: str) -> float | AtLeast:
    """Geometric mean of `count` over problems, or a lower bound if a minimisation has not converged."""
    mean = math.exp(sum(math.log(getattr(one, count)) for one in walks) / len(walks))
    return mean if all(one.arrived for one in walks) else AtLeast(mean)


def summary(walks: Sequence[Walk]) -> dict[str, float | AtLeast]:
    """Mean numbers of evaluations and iterations, and the share of problems that were solved."""
    means = {count: geometric(walks, count) for count in ("evaluations", "iterations")}
    return {**means, "share solved": fmean(one.arrived for one in walks)}


def number_of(value: float | AtLeast) -> float:
    return value.value if isinstance(value, AtLeast) else value


def without_curvature(H: Matrix, s: Vector, y: Vector) -> Matrix:
    return torch.eye(len(s)).to(s)


def mostly_dfp(H: Matrix, s: Vector, y: Vector) -> Matrix:
    return 0.01 * bfgs_update(H, s, y) + 0.99 * dfp_update(H, s, y)


def conjugate(weights: Iterable[Any], *, c2: float, **settings: Any) -> Conjugate:
    return Conjugate(weights, c2=min(c2, 0.4), **settings)


Make = Callable[..., Minimizer]
Walks = dict[str, list[Walk]]  # maps a search to the walk on each problem
SEARCHES = {"loose": 0.9, "near-exact": 0.01}  # maps a search to its c2


class World(NamedTuple):
    problems: list[Problem]
    searches: dict[str, float]


@hookimpl
def experiment(run: Run) -> None:
    run.headline("gradient (log10, relative)")
    n, most = run.pick(smoke=(2, 100), quick=(10, 800), full=(10, 3000))
    generator = run.data("problems", "judge")
    problems = [
        rosenbrock_problem(n, generator),
        logistic_problem(generator, scale=run.pick(smoke=1.0, quick=16.0, full=16.0)),
        logistic_problem(generator),
    ]
    world = World(problems, SEARCHES)
    table = run.compare(
        LOOSE,
        CLOSES,
        arms={"BFGS": Arm(partial(BFGS, update=bfgs_update)), "DFP": Arm(partial(BFGS, update=dfp_update))},
        attempt=partial(attempt, most=most),
        read=read,
        derive=closing,
        world=world,
        breaks={
            NO_CURVATURE.name: {"BFGS": Arm(partial(BFGS, update=without_curvature))},
            MOSTLY_DFP.name: {"BFGS": Arm(partial(BFGS, update=mostly_dfp))},
            CONJUGATE.name: {"BFGS": Arm(conjugate)},
            STAYS_LOOSE.name: lambda world: world._replace(
                searches=dict.fromkeys(SEARCHES, SEARCHES["loose"])
            ),
        },
        null=NoNull("nothing is trained, and three problems are too few for a random assignment"),
    )
    if table.sweeps:
        draw(run, {arm: sweep.chosen["loose"][0] for arm, sweep in table.sweeps.items()})
    if not run.null and not run.broken:
        beside_others(run, [rosenbrock_problem(2, generator), *problems], generator)


def attempt(at: Trial, make: Make, _: None, *, most: int) -> tuple[float, Walks]:
    world: World = at.world
    cases = [(search, c2, problem) for search, c2 in world.searches.items() for problem in world.problems]
    found: Walks = {}
    for case in at.steps(len(cases), at.name, state=(found,)):
        search, c2, problem = cases[case]
        found.setdefault(search, []).append(walk(problem, partial(make, c2=c2), most=most))
    return math.nan, found


def read(at: Trial, found: Sweep[Walks]) -> dict[str, float | AtLeast]:
    values: dict[str, float | AtLeast] = {}
    for search, walks in found.chosen.items():
        at.run.axes(f"evaluations, {search} search", x="problem")
        for index, one in enumerate(walks):
            at.metric(f"evaluations, {search} search", one.evaluations, step=index)
        values |= {f"{name}, {search} search": value for name, value in summary(walks).items()}
    for name, value in values.items():
        at.metric(f"{name}, mean", number_of(value))
    return values


def closing(table: Table) -> dict[str, dict[str, float | AtLeast]]:
    """Ratio of the loose to the near-exact search's gap between DFP and BFGS, in iterations."""
    counts = {
        (arm, search): table[arm, f"iterations, {search} search"]
        for arm in ("DFP", "BFGS")
        for search in ("loose", "near-exact")
    }
    loose, exact = (
        number_of(counts["DFP", search]) / number_of(counts["BFGS", search])
        for search in ("loose", "near-exact")
    )
    open_end = [key for key, count in counts.items() if isinstance(count, AtLeast)]
    gap = AtLeast(loose / exact) if open_end == [("DFP", "loose")] else loose / exact
    return {"": {"gap in iterations, loose / near-exact search": gap}}


def draw(run: Run, walks: dict[str, Walk]) -> None:
    """Plot the gradient's norm on Rosenbrock's function against the number of evaluations."""
    run.axes("gradient (log10, relative)", x="evaluations")
    for arm, one in walks.items():
        for progress in one.trace[:: max(len(one.trace) // 100, 1)]:
            relative = max(progress.gradient / one.trace[0].gradient, 1e-16)
            run.metric("gradient (log10, relative)", math.log10(relative), step=progress.evaluations, arm=arm)


def beside_others(run: Run, problems: list[Problem], generator: torch.Generator) -> None:
    """Save a table of iterations and evaluations, for all methods and scipy's. No claim uses it."""
    most = run.pick(smoke=3, quick=400, full=3000)
    problems = [*problems, network_problem(generator, hidden=run.pick(smoke=1, quick=3, full=6))]
    makers: dict[str, Callable[..., Minimizer]] = {
        "BFGS": BFGS,
        "DFP": partial(BFGS, update=dfp_update),
        "conjugate gradients": Conjugate,
        "gradient descent": partial(Conjugate, beta=False),
    }
    rows: list[tuple[Any, ...]] = []
    for index in run.steps(len(problems), "beside others"):
        problem = problems[index]
        for arm, make in makers.items():
            run.check_cancelled()
            one = walk(problem, make, most=most)
            rows.append((problem.name, arm, one.iterations, one.evaluations, one.trace[-1].loss, one.arrived))
        rows.extend((problem.name, *row) for row in scipys(problem, most, ("BFGS", "CG")))
    columns = ("function", "method", "iterations", "evaluations", "loss", "done")
    run.table(
        "comparison with other methods",
        columns,
        rows,
        caption="Iterations and evaluations until the gradient's norm is a millionth of the initial norm.",
    )


def scipys(problem: Problem, most: int, methods: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Name, iterations, evaluations, final loss, and whether the final gradient is small enough."""
    from scipy.optimize import minimize  # installed with scikit-learn

    gradient = torch.func.grad_and_value(problem.loss)
    aim = 1e-6 * gradient(problem.start)[0].norm().item()

    def both(x: Any) -> tuple[float, Any]:
        slope, loss = gradient(torch.tensor(x))
        return loss.item(), slope.numpy()

    for method in methods:
        options = {"maxiter": most, "gtol": aim / math.sqrt(len(problem.start))}
        options |= {"ftol": 0.0, "maxfun": 10 * most} if method == "L-BFGS-B" else {"norm": 2, "gtol": aim}
        found = minimize(both, problem.start.numpy(), jac=True, method=method, options=options)
        slope = gradient(torch.tensor(found.x))[0].norm().item()
        yield f"scipy {method}", found.nit, found.nfev, float(found.fun), slope <= aim
