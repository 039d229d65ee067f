"""Statistics of repeated timings. Pure: no clock and no device in here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Stop = Literal["ci", "budget", "noise-stable"]


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of sorted values, linear between neighbours."""
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median_rank(n: int, confidence: float = 0.95) -> int | None:
    """The largest r for which (x[r-1], x[n-r]) covers the median of n independent samples at least as often
    as `confidence` says; None when even the whole range does not (n < 6 for 95 %).

    Sum of C(n, k) / 2^n over k < r must stay below half of what may be missed (David & Nagaraja, Order
    Statistics, section 7.1).
    """
    allowed = (1 - confidence) / 2
    below, term, r = 0.0, 0.5**n, 0
    while r < n and below + term <= allowed:
        below += term
        r += 1
        term *= (n - r + 1) / r
    return r or None


def median_interval(ordered: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Order-statistic confidence interval of the median of sorted values, or None when there are too few."""
    rank = median_rank(len(ordered), confidence)
    return None if rank is None else (ordered[rank - 1], ordered[len(ordered) - rank])


@dataclass(frozen=True, slots=True)
class Timing:
    """What is kept of the samples of one variant; times in nanoseconds a call."""

    n: int
    block: int
    min: float
    p20: float
    p50: float
    p80: float
    iqr: float
    ci95: tuple[float, float] | None
    stop: Stop

    def to_json(self) -> dict[str, Any]:
        def shortened(value: float) -> float:
            return round(value, 1)

        return {
            "n": self.n,
            "block": self.block,
            "min": shortened(self.min),
            "p20": shortened(self.p20),
            "p50": shortened(self.p50),
            "p80": shortened(self.p80),
            "iqr": shortened(self.iqr),
            "ci95": self.ci95 and [shortened(bound) for bound in self.ci95],
            "stop": self.stop,
        }


def summarise(samples: Sequence[float], *, block: int, stop: Stop) -> Timing:
    ordered = sorted(samples)
    return Timing(
        n=len(ordered),
        block=block,
        min=ordered[0],
        p20=quantile(ordered, 0.2),
        p50=quantile(ordered, 0.5),
        p80=quantile(ordered, 0.8),
        iqr=quantile(ordered, 0.75) - quantile(ordered, 0.25),
        ci95=median_interval(ordered),
        stop=stop,
    )
