"""A paper's claim as a rule that stands before the run and can fail.

A claim is a set of bounds on named metrics. The verdict is computed from the numbers alone:

- `exact`: an identity or a count, and every bound held;
- `reproduced`: every bound held;
- `weak`: every metric went in the paper's direction, but some bound was missed;
- `not reproduced`: anything else, a NaN or a missing metric included.

All four are results. `not judged` stands where the run was too short to judge (the smoke budget).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from readtrack.text import number

Op = Literal[">=", "<=", "==", ">", "<"]
Verdict = Literal["exact", "reproduced", "weak", "not reproduced", "not judged"]

_HOLDS = {
    ">=": lambda ours, threshold: ours >= threshold,
    "<=": lambda ours, threshold: ours <= threshold,
    ">": lambda ours, threshold: ours > threshold,
    "<": lambda ours, threshold: ours < threshold,
    "==": lambda ours, threshold: ours == threshold,
}


@dataclass(frozen=True, slots=True)
class Bound:
    """`metric op threshold`, for example `Bound("accuracy drop", "<=", 0.03)`.

    `direction` is the value that tells the paper's direction from the opposite one: a metric that misses
    the threshold but passes `direction` (with the same operator) is weak evidence. None: no half measure.
    """

    metric: str
    op: Op
    threshold: float
    direction: float | None = None

    def holds(self, ours: float) -> bool:
        return not math.isnan(ours) and _HOLDS[self.op](ours, self.threshold)

    def points_the_right_way(self, ours: float) -> bool:
        if self.direction is None or math.isnan(ours):
            return self.holds(ours)
        return self.holds(ours) or _HOLDS[self.op](ours, self.direction)

    def __str__(self) -> str:
        sign = {">=": "≥", "<=": "≤", "==": "="}.get(self.op, self.op)
        return f"{self.metric} {sign} {number(self.threshold)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a paper says, and the rule, written before the run, that decides whether it held here.

    name        short and unique within the paper, for tables
    sentence    the paper's claim in our words
    paper       the paper's own figure, as text ("BLEU 28.4, Table 2")
    rule        bounds that must all hold
    exact       an identity or a count: holds or does not, seeds play no part
    seeds       how many seeds `readtrack verify` runs
    every_seed  True: each seed must hold by itself; False: the mean over the seeds decides
    control     the arm that the paper's arm is compared with
    deviations  where the set-up differs from the paper's
    """

    name: str
    sentence: str
    paper: str
    rule: tuple[Bound, ...]
    exact: bool = False
    seeds: int = 3
    every_seed: bool = False
    control: str = ""
    deviations: str = ""

    def judge(self, values: Mapping[str, float]) -> Verdict:
        """The verdict on one set of numbers (metric name to value)."""
        return judge(self.rule, values, exact=self.exact)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Claim:
        return cls(**{**fields, "rule": tuple(Bound(**bound) for bound in fields["rule"])})


def judge(rule: tuple[Bound, ...], values: Mapping[str, float], *, exact: bool = False) -> Verdict:
    ours = [values.get(bound.metric, math.nan) for bound in rule]
    if all(bound.holds(value) for bound, value in zip(rule, ours, strict=True)):
        return "exact" if exact else "reproduced"
    if not exact and all(b.points_the_right_way(v) for b, v in zip(rule, ours, strict=True)):
        return "weak"
    return "not reproduced"
