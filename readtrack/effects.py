"""The effect behind a verdict: the threshold of a rule, and the result over the seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

from readtrack.signs import relation
from readtrack.text import format_number


class Effect(NamedTuple):
    """A bound's threshold and the result over the seeds.

    Mean and 95 % interval are None if a mean is not meaningful. For times, the interval is computed over the
    benchmark's runs.

    even   the value at which the arms that the bound compares are equal; None without a comparison
    ratio  the metric is a ratio, so its mean is geometric
    """

    metric: str
    op: str
    asked: float
    even: float | None
    ratio: bool
    mean: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """The bound as text: `gain ≥ 0.2`."""
        return f"{self.metric} {self.wanted}"

    @property
    def found(self) -> str:
        """`gain 0.294 (0.229 to 0.36)`."""
        if self.mean is None or self.low is None or self.high is None:
            return f"{self.metric}: no mean"
        mean, low, high = map(format_number, (self.mean, self.low, self.high))
        return f"{self.metric} {mean} ({low} to {high})"

    @property
    def wanted(self) -> str:
        """`≥ 0.2`."""
        return f"{relation(self.op)} {format_number(self.asked)}"

    @property
    def scaled(self) -> tuple[float, float, float] | None:
        """Mean and interval on a scale where 0 is `even` and 1 is `asked`; None if there is no scale."""
        if self.even is None or self.even == self.asked or self.mean is None:
            return None
        values = (self.even, self.asked, self.mean, self.low, self.high)
        there = [value for value in values if value is not None and math.isfinite(value)]
        if len(there) < len(values) or (self.ratio and min(there) <= 0):
            return None
        even, asked, *found = map(math.log, there) if self.ratio else there
        mean, low, high = [(value - even) / (asked - even) for value in found]
        return mean, min(low, high), max(low, high)
