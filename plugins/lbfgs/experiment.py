"""Counts evaluations until the gradient's norm is a millionth of the initial one, for L-BFGS with several
scales, BFGS, gradient descent and conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from statistics import fmean
from typing import Any

from jaxtyping import Float
from torch import Tensor

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
    Trial,
    at_least,
    at_most,
    hookimpl,
)

from ..bfgs.experiment import Make, Walk, conjugate, geometric, number_of, scipys, walk
from ..bfgs.model import BFGS
from ..bfgs.rivals import Conjugate, HestenesStiefel
from ..newton.problems import Problem, logistic_problem, network_problem, rosenbrock_problem
from .model import LBFGS, Pairs

NO_SCALE = Break("no scale", "Every product starts from the identity.")
TENTH = Break("a tenth of the scale", "The scale is a tenth of the newest pair's.", "near miss")
NO_PAIRS = Break("no pairs", "L-BFGS stores no pairs, and becomes gradient descent.")
SCALE_ALONE = Break(
    "the scale alone",
    "The direction is the negative gradient times the newest pair's scale, without pairs.",
    "near miss",
)
CONJUGATE = Break(
    "conjugate gradients",
    "The optimiser is nonlinear conjugate gradients (c2 = 0.4), which stores two vectors.",
    "rival",
)
HESTENES_STIEFEL = Break(
    "Hestenes-Stiefel",
    "The optimiser is nonlinear conjugate gradients with Hestenes and Stiefel's factor (c2 = 0.6), which "
    "stores two vectors.",
    "rival",
)
NULL = NoNull("there is no training, and a sign test needs more than two problems")

SCALE = Claim(
    name="evaluations with the newest pair's scale",
    sentence="L-BFGS needs fewer evaluations if every product starts from the newest pair's scale than if it "
    "starts from the first pair's scale or from the identity. The counts are averaged over 3 to 20 stored "
    "pairs.",
    paper=Figure("L-BFGS can be greatly accelerated by means of a simple scaling.", "abstract", "secondary"),
    rule=(
        at_least(
            "evaluations",
            "first pair's scale",
            1.6,
            over="newest pair's scale",
            toward=1.0,
            called="evaluations, first pair's scale / newest pair's",
        ),
        at_least(
            "evaluations",
            "no scale",
            1.6,
            over="newest pair's scale",
            toward=1.0,
            called="evaluations, no scale / newest pair's",
        ),
    ),
    control="the same optimiser with the first pair's scale in all products, and without a scale",
    control_arm="first pair's scale",
    control_reaches=(at_least("share solved", "no scale", 1.0),),
    breaks=(NO_SCALE, TENTH, CONJUGATE, HESTENES_STIEFEL),
    chosen_on=(0, 1),
    deviations="The counts are geometric means over 3, 5, 10 and 20 pairs and two functions, in float64 with "
    "at most 1000 iterations. The functions are the extended Rosenbrock function (n = 1000) and a logistic "
    "regression on two classes of digits (pixels up to 16). The paper has 16 problems, and also tests a "
    "diagonal scale. The scale of the oldest stored pair works equally well (2.2 times fewer evaluations "
    "than with the first pair's scale, on seed 0). On Rosenbrock's function alone, for some numbers of "
    "pairs, the first pair's scale needs only 10 to 25 % more evaluations. With conjugate gradients instead "
    "of L-BFGS, the claim passes on seed 0 (ratios 1.8 and 2.7) and fails on seed 1 (1.3 and 1.8). With "
    "Hestenes and Stiefel's factor and c2 = 0.6, conjugate gradients pass. This form was chosen from 24 on 7 "
    "seeds, where its ratios are 1.6 to 2.2 and 2.3 to 3.6. On 10 other seeds, they are 1.3 to 2.4 and 2.1 "
    "to 3.4, and 8 seeds hold.",
    headline=True,
    history=(
        (
            'Until November 2026 the only control had no scale, and the verdict was "reproduced" (5 of 5 '
            "seeds, 3.2 times the evaluations). The sentence claimed the result for any number of pairs."
        ),
        (
            'The verdict was then "reproduced" (5 of 5 seeds, same bounds). The only rival was Polak and '
            "Ribière's form of conjugate gradients."
        ),
    ),
)

KEEPS = Claim(
    name="evaluations with five pairs",
    sentence="With five pairs, L-BFGS needs at most 1.5 times the evaluations of BFGS, which stores a "
    "matrix. It needs at most 40 % of the evaluations of gradient descent, which stores nothing.",
    paper=Figure(
        "The number of stored pairs has little effect on large problems. The abstract says that L-BFGS uses "
        "additional storage better than an earlier method does.",
        read="secondary",
    ),
    rule=(
        at_most("evaluations", "L-BFGS", 1.5, over="BFGS", called="evaluations, L-BFGS / BFGS"),
        at_least(
            "evaluations",
            "gradient descent",
            2.5,
            over="L-BFGS",
            toward=1.0,
            called="evaluations, gradient descent / L-BFGS",
        ),
    ),
    guards=(Bound("numbers kept, L-BFGS / BFGS", "<=", 0.2),),
    control="gradient descent with the line search of conjugate gradients (c2 = 0.4)",
    control_arm="gradient descent",
    breaks=(NO_PAIRS, SCALE_ALONE, CONJUGATE),
    chosen_on=(0, 1),
    deviations="The counts are geometric means over two functions, in float64 with at most 1000 iterations. "
    "The functions are the extended Rosenbrock function (n = 100) and a logistic regression on two classes "
    "of digits (pixels up to 16). The paper compares numbers of pairs with each other, and L-BFGS with "
    "partitioned quasi-Newton methods.",
    history=(
        'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bounds). There was no rival.',
    ),
)


class FirstScale(LBFGS):
    """Always uses the scale of the first pair, which is the second of the paper's scalings."""

    def scale(self, s: Pairs, y: Pairs) -> Float[Tensor, ""]:
        return self.memory.setdefault("gamma", super().scale(s, y))


class TenthScale(LBFGS):
    def scale(self, s: Pairs, y: Pairs) -> Float[Tensor, ""]:
        return super().scale(s, y) / 10


class ScaleAlone(LBFGS):
    """Barzilai-Borwein step lengths, with the same line search."""

    def direction(self, gradient: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        s, y = self.memory.get("s", []), self.memory.get("y", [])
        return -gradient * self.scale(s, y) if s else -gradient


def descent(weights: Iterable[Any], **settings: Any) -> Conjugate:
    return Conjugate(weights, beta=False, **settings)


def conjugate_pairs(weights: Iterable[Any], *, pairs: int, **settings: Any) -> Conjugate:
    """Conjugate gradients store no pairs, so `pairs` is ignored."""
    return conjugate(weights, c2=0.4, **settings)


def hestenes_stiefel(weights: Iterable[Any], *, pairs: int, **settings: Any) -> HestenesStiefel:
    return HestenesStiefel(weights, c2=0.6, **settings)


@hookimpl
def experiment(run: Run) -> None:
    run.headline("evaluations, Rosenbrock")
    generator = run.data("scale", "judge")
    n, most = run.pick(smoke=(4, 150), quick=(1000, 1000), full=(10_000, 3000))
    run.compare(
        SCALE,
        arms={
            "newest pair's scale": Arm(LBFGS),
            "first pair's scale": Arm(FirstScale),
            "no scale": Arm(partial(LBFGS, scaled=False)),
        },
        attempt=partial(
            minimise, pairs=run.pick(smoke=(3,), quick=(3, 5, 10, 20), full=(3, 5, 10, 20)), most=most
        ),
        read=partial(read, title="evaluations"),
        world=problems(run, n, generator),
        breaks={
            NO_SCALE.name: {"newest pair's scale": Arm(partial(LBFGS, scaled=False))},
            TENTH.name: {"newest pair's scale": Arm(TenthScale)},
            CONJUGATE.name: {"newest pair's scale": Arm(conjugate_pairs)},
            HESTENES_STIEFEL.name: {"newest pair's scale": Arm(hestenes_stiefel)},
        },
        null=NULL,
    )
    generator = run.data("keep", "judge")
    n, most = run.pick(smoke=(20, 150), quick=(100, 1000), full=(100, 5000))
    given = problems(run, n, generator)
    kept = [2 * 5 * len(problem.start) / len(problem.start) ** 2 for problem in given.values()]
    run.compare(
        KEEPS,
        arms={
            "L-BFGS": Arm(partial(LBFGS, pairs=5)),
            "BFGS": Arm(BFGS),
            "gradient descent": Arm(descent),
        },
        attempt=partial(minimise, most=most),
        read=partial(read, title="evaluations, five pairs"),
        references={"": {"numbers kept, L-BFGS / BFGS": max(kept)}},
        world=given,
        breaks={
            NO_PAIRS.name: {"L-BFGS": Arm(descent)},
            SCALE_ALONE.name: {"L-BFGS": Arm(partial(ScaleAlone, pairs=1))},
            CONJUGATE.name: {"L-BFGS": Arm(Conjugate)},
        },
        null=NULL,
    )
    if not run.null and not run.broken:
        beside_others(run)


Problems = dict[str, Problem]
Walks = dict[tuple[str, int], Walk]  # maps problem and number of pairs (0: the arm's own) to a walk


def problems(run: Run, n: int, generator: Any) -> Problems:
    scale = run.pick(smoke=1.0, quick=16.0, full=16.0)
    return {
        "Rosenbrock": rosenbrock_problem(n, generator),
        "logistic": logistic_problem(generator, scale=scale),
    }


def minimise(
    at: Trial, make: Make, _: None, *, pairs: tuple[int, ...] = (0,), most: int
) -> tuple[float, Walks]:
    """Minimise every problem with each number of pairs. 0 means the arm's own number."""
    cases = [(name, kept) for kept in pairs for name in at.world]
    found = {}
    for case in at.steps(len(cases), at.name, state=(found,)):
        name, kept = cases[case]
        found[cases[case]] = walk(at.world[name], partial(make, pairs=kept) if kept else make, most=most)
    return math.nan, found


def read(at: Trial, found: Sweep[Walks], *, title: str) -> dict[str, float | AtLeast]:
    walks = list(found.chosen.values())
    for (name, pairs), one in found.chosen.items():
        at.metric(f"{title}, {name}", one.evaluations, step=pairs)
    for name in at.world:
        at.run.axes(f"{title}, {name}", x="pairs")
    values = {
        "evaluations": geometric(walks, "evaluations"),
        "share solved": fmean(one.arrived for one in walks),
    }
    for name, value in values.items():
        at.metric(f"{title}: {name}", number_of(value))
    return values


def beside_others(run: Run) -> None:
    """Save a table of iterations and evaluations of our optimisers and SciPy's. No claim uses it."""
    generator = run.generator("others")
    n, hidden, most = run.pick(smoke=(10, 1, 3), quick=(1000, 3, 400), full=(1000, 6, 3000))
    problems = [
        rosenbrock_problem(n, generator),
        logistic_problem(generator, scale=16.0),
        network_problem(generator, hidden=hidden),
    ]
    rows: list[tuple[Any, ...]] = []
    for index in run.steps(len(problems), "beside others"):
        problem = problems[index]
        makers: dict[str, Make] = {"L-BFGS": LBFGS, "conjugate gradients": Conjugate}
        if len(problem.start) < 1000:
            makers["BFGS"] = BFGS
        for arm, make in makers.items():
            run.check_cancelled()
            one = walk(problem, make, most=most)
            rows.append((problem.name, arm, one.iterations, one.evaluations, one.trace[-1].loss, one.arrived))
        rows.extend((problem.name, *row) for row in scipys(problem, most, ("L-BFGS-B", "CG")))
    columns = ("function", "method", "iterations", "evaluations", "loss", "done")
    run.table(
        "comparison with other methods",
        columns,
        rows,
        caption="Iterations and evaluations until the gradient's norm is a millionth of the initial one.",
    )
