"""The sequential test behind the verdicts, with up to three looks at the values of a claim's seeds.

At each look a bound is tested by the t statistic of its margins, the signed distances of the values from the
threshold. If some value is not finite or is a lower bound, or all margins are equal, the counts of seeds on
either side decide. docs/method.md states the error rates; docs/method/make.py simulates them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from readtrack.bench.stats import student_t
from readtrack.claims import Bound, Op
from readtrack.text import format_number

Side = Literal["cleared", "right way", "missed", "undecided"]
Summary = Literal["reproduced", "weak", "inconclusive", "not reproduced"]

# Rows of a table with another number were judged by another procedure. Procedure 1 examined 5 seeds. If one
# of them dissented, it examined 10, of which 9 had to agree.
PROCEDURE = 2
STEADY = 0.75  # minimum share of seeds that hold individually; below it `reproduced` is unsteady


class Look(NamedTuple):
    """A look at the values of the first `seeds` seeds.

    t      a bound is cleared if t exceeds it, and missed if t is below its negative
    agree  number of seeds that must pass or fail when counts decide
    """

    seeds: int
    t: float
    agree: int


# Over the three looks together, a mean that lies on the threshold clears it in 5 % of all verifications.
LOOKS = (Look(5, 3.73, 5), Look(10, 2.47, 9), Look(20, 1.96, 15))
MOST_SEEDS = LOOKS[-1].seeds
MORE = 4  # multiple of the steps that a claim states, after which the effect must still have the same sign
MORE_STEPS = f"{MORE} times the steps"  # the name of such runs
_DRAWS = 400  # simulations of another verification


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one bound in the order of the seeds; NaN if a run gave none.

    censored  some value is only a lower bound
    """

    bound: Bound
    values: tuple[float, ...]
    censored: bool = False

    def first(self, count: int) -> Column:
        return replace(self, values=self.values[:count])

    @property
    def margins(self) -> list[float] | None:
        """The signed distance of each value from the threshold, in logarithms for a ratio.

        None if a mean of them is not meaningful.
        """
        return None if self.censored else margins(self.bound, self.values)


def margins(bound: Bound, values: Sequence[float]) -> list[float] | None:
    """The margins of `values`, as in `Column.margins`."""
    if bound.op == "==" or not all(map(math.isfinite, values)):
        return None
    sign = 1.0 if bound.op in (">=", ">") else -1.0
    if bound.ratio:
        if bound.threshold <= 0 or min(values) <= 0:
            return None
        return [sign * math.log(value / bound.threshold) for value in values]
    return [sign * (value - bound.threshold) for value in values]


def side(column: Column, look: Look) -> Side:
    """The state of a bound at `look`, which uses all of the column's values.

    `right way`: `Bound.direction` is cleared, and the threshold missed, or still undecided at the last look.
    """
    threshold = _sure(column, look)
    if threshold > 0:
        return "cleared"
    if threshold == 0 and look is not LOOKS[-1]:
        return "undecided"
    bound = column.bound
    if bound.direction is not None:
        # If an arm equals its control, its effect has no direction.
        strictly: Op = ">" if bound.op == ">=" else "<" if bound.op == "<=" else bound.op
        if _sure(replace(column, bound=replace(bound, op=strictly, threshold=bound.direction)), look) > 0:
            return "right way"
    return "missed" if threshold < 0 else "undecided"


def _sure(column: Column, look: Look) -> int:
    """1 if the values significantly pass the bound's threshold, -1 if they significantly fail it, else 0."""
    found = column.margins
    if found is None or len(set(found)) == 1:
        passed, count = sum(map(column.bound.holds, column.values)), len(column.values)
        return (passed >= look.agree) - (count - passed >= look.agree)
    count, mean = len(found), fmean(found)
    needed = look.t * math.dist(found, [mean] * count) / math.sqrt((count - 1) * count)
    return (mean > needed) - (mean < -needed)


def sides(columns: Sequence[Column], look: Look) -> list[Side]:
    """The state of each bound after the first `look.seeds` seeds."""
    return [side(column.first(look.seeds), look) for column in columns]


def decided(found: Sequence[Side]) -> bool:
    """Whether no further look is needed: all bounds are decided, or one is missed."""
    return "missed" in found or "undecided" not in found


def summary(found: Sequence[Side]) -> Summary:
    """The verdict on a claim from the states of its bounds.

    All must be cleared; a single missed bound means `not reproduced`.
    """
    if "missed" in found:
        return "not reproduced"
    if "undecided" in found:
        return "inconclusive"
    return "weak" if "right way" in found else "reproduced"


def interval(column: Column) -> str:
    """The 95 % interval of the mean as text, for example `gain 0.1 to 0.3 (95 %)`.

    If a mean is not meaningful, it is a count of seeds.
    """
    found = mean_interval(column)
    if found is None:
        return f"{column.bound}: {sum(map(column.bound.holds, column.values))} of {len(column.values)} seeds"
    _, low, high = found
    return f"{column.bound.metric} {format_number(low)} to {format_number(high)} (95 %)"


def mean_interval(column: Column) -> tuple[float, float, float] | None:
    """The mean over the seeds, geometric for a ratio, and its 95 % interval by the t distribution.

    None if a mean is not meaningful.
    """
    bound, found = column.bound, column.margins
    if found is None or len(found) < 2:
        return None
    middle, reach = fmean(found), student_t(len(found) - 1) * stdev(found) / math.sqrt(len(found))
    sign = 1.0 if bound.op in (">=", ">") else -1.0
    ends = [sign * (middle + way * reach) for way in (0, -sign, sign)]
    mean, low, high = [
        bound.threshold * math.exp(end) if bound.ratio else bound.threshold + end for end in ends
    ]
    return mean, low, high


def chance_of_another(columns: Sequence[Column], verdict: str) -> float | None:
    """The probability that another verification, with all its looks, gives a verdict other than `verdict`.

    columns  the values that led to `verdict`

    Its values are sampled from normal distributions that include the uncertainty of the columns' means and
    variances. The bounds are sampled independently. None if a column has no margins.
    """
    found = [(column.bound, column.margins) for column in columns]
    if not found or any(values is None or len(values) < LOOKS[0].seeds for _, values in found):
        return None
    draw = random.Random(0)
    other = 0
    for _ in range(_DRAWS):
        drawn = [Column(_of_margins(bound), _another(draw, values)) for bound, values in found if values]
        other += summary(_at_end(drawn)) != verdict
    return other / _DRAWS


def _at_end(columns: Sequence[Column]) -> list[Side]:
    """The state of each bound at the deciding look."""
    for look in LOOKS:
        found = sides(columns, look)
        if decided(found):
            break
    return found


def _of_margins(bound: Bound) -> Bound:
    """The bound in terms of its own margin."""
    direction = None
    if bound.direction is not None:
        found = margins(bound, [bound.direction])
        direction = found[0] if found else None
    return Bound(bound.metric, ">=", 0.0, direction)


def _another(draw: random.Random, seen: Sequence[float]) -> tuple[float, ...]:
    """Simulated margins for `MOST_SEEDS` seeds."""
    count = len(seen)
    sigma = stdev(seen) * math.sqrt((count - 1) / draw.gammavariate((count - 1) / 2, 2))
    centre = draw.gauss(fmean(seen), sigma / math.sqrt(count))
    return tuple(draw.gauss(centre, sigma) for _ in range(MOST_SEEDS))
