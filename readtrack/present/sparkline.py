"""A curve as one row of bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from readtrack.present.scales import wants_log

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Axes:
    """The range of steps and values that the curves of one metric share; logarithmic if it is wide."""

    first: float
    last: float
    low: float
    high: float

    @classmethod
    def around(cls, curves: Iterable[Sequence[tuple[float, float]]]) -> Axes:
        points = [point for curve in curves for point in curve]
        steps = [step for step, _ in points]
        finite = [y for _, y in points if math.isfinite(y)] or [0.0]
        return cls(min(steps), max(steps), min(finite), max(finite))

    @property
    def logarithmic(self) -> bool:
        return wants_log((self.low, self.high))

    def column(self, step: float, columns: int) -> int:
        return int((step - self.first) * columns / (self.last - self.first + 1))

    def height(self, y: float) -> float:
        """0 at the bottom, 1 at the top."""
        if self.logarithmic:
            return math.log(y / self.low) / math.log(self.high / self.low)
        return (y - self.low) / ((self.high - self.low) or 1.0)


def sparkline(points: Sequence[tuple[float, float]], axes: Axes, columns: int) -> str:
    """Each column shows the last point up to it, or a gap if that is not finite."""
    columns = min(columns, int(axes.last - axes.first) + 1)
    row = ""
    for step, y in points:
        bar = BARS[min(7, int(axes.height(y) * 8))] if math.isfinite(y) else " "
        column = axes.column(step, columns)
        row = row[:column].ljust(column, row[-1:] or " ") + bar
    return row
