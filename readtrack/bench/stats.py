"""Statistics of repeated timings. Pure: no clock and no device in here.

The median, because timings are skewed to the right; its interval from order statistics, because that needs no
shape of the noise. A sample is a time in nanoseconds a call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import NormalDist, fmean, stdev
from typing import Any, Literal

Stop = Literal["ci", "budget", "noise-stable"]
Interval = tuple[float, float]


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of sorted values, linear between neighbours."""
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median_rank(n: int, confidence: float = 0.95) -> int | None:
    """The largest r for which (x[r-1], x[n-r]) covers the median of n independent samples at least as often
    as `confidence` says; None when even the whole range does not (n < 6 for 95 %).

    The sum of C(n, k) / 2^n over k < r is at most half of what may be missed (David & Nagaraja, Order
    Statistics, section 7.1).
    """
    allowed = (1 - confidence) / 2
    if n > 1000:  # 2^-n is no longer a float, and the normal approximation is exact to a rank
        return math.floor((n + NormalDist().inv_cdf(allowed) * math.sqrt(n)) / 2)
    below, term, r = 0.0, 0.5**n, 0
    while r < n and below + term <= allowed:
        below += term
        r += 1
        term *= (n - r + 1) / r
    return r or None


def independent_count(samples: Sequence[float]) -> int:
    """How many independent samples these, in the order of time, are worth for their median.

    Drift and bursts make neighbours alike, and an interval that counts each as news is too narrow. With r the
    correlation of "above the median" between neighbours, n alike samples are worth n (1 - r) / (1 + r), as in
    a first-order autoregression. A correlation within chance counts as none.
    """
    n = len(samples)
    middle = quantile(sorted(samples), 0.5)
    signs = [(sample > middle) - (sample < middle) for sample in samples]
    spread = sum(sign * sign for sign in signs)
    if spread == 0:
        return n
    correlation = sum(a * b for a, b in pairwise(signs)) / spread
    if correlation <= 1 / math.sqrt(n):
        return n
    return max(1, round(n * (1 - correlation) / (1 + correlation)))


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Confidence interval of the median of samples in the order of time; None when there are too few.

    Where neighbours are alike, the ranks move out as far as that many fewer independent samples ask.
    """
    n = len(samples)
    rank = median_rank(n, confidence)
    if rank is None:
        return None
    worth = independent_count(samples)
    if worth < n:
        rank = max(1, math.floor(n / 2 - (n / 2 - rank) * math.sqrt(n / worth)))
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[n - rank]


def half_width(interval: Interval | None, centre: float) -> float:
    """Half the interval's width relative to its centre; infinite without an interval."""
    return math.inf if interval is None else (interval[1] - interval[0]) / 2 / centre


def ratio_interval(above: float, above_ci: Interval, below: float, below_ci: Interval) -> Interval:
    """Confidence interval of above/below from the two intervals.

    The distances to the bounds are joined in quadrature on the logarithm (Zou & Donner 2008, Statistics in
    Medicine 27, the MOVER method), which keeps their confidence; dividing bound by bound would be far too
    wide.
    """
    ratio = above / below
    down = math.hypot(math.log(above / above_ci[0]), math.log(below_ci[1] / below))
    up = math.hypot(math.log(above_ci[1] / above), math.log(below / below_ci[0]))
    return ratio * math.exp(-down), ratio * math.exp(up)


@cache
def student_t(df: int, confidence: float = 0.95) -> float:
    """The t that Student's distribution with `df` degrees of freedom exceeds, on both sides together, with
    probability 1 - confidence. By bisection of its distribution (Abramowitz & Stegun, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _between(middle, df) < confidence else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _between(angle: float, df: int) -> float:
    """The probability of |t| < sqrt(df) tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(2 + odd, df + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def drift(rounds: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation of the logarithm of the rounds' medians; None when fewer than three rounds say.

    What a machine does by itself from one round to the next: clock, neighbours, where pages came to lie.
    """
    medians = [math.log(quantile(sorted(samples), 0.5)) for samples in rounds if samples]
    return stdev(medians) if len(medians) >= 3 else None


def rounds_interval(rounds: Sequence[Sequence[float]]) -> Interval | None:
    """Confidence interval (95 %) of the median over several rounds' samples in the order of time.

    The wider of two: that of all samples, and Student's around the median from how far the rounds' medians
    lie apart. Samples of one round share what the machine did at that time; however many there are, they
    cannot say what it does at another.
    """
    samples = [sample for taken in rounds for sample in taken]
    within, between = median_interval(samples), drift(rounds)
    if within is None or between is None:
        return within
    reach = _reach(between, sum(1 for taken in rounds if taken))
    middle = quantile(sorted(samples), 0.5)
    return min(within[0], middle / reach), max(within[1], middle * reach)


def _reach(deviation: float, count: int) -> float:
    """By what factor Student's interval (95 %) reaches from the mean of that many logarithms."""
    return math.exp(student_t(count - 1) * deviation / math.sqrt(count))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Student's interval (95 %) of the mean; None with fewer than three values."""
    if len(values) < 3:
        return None
    reach = math.log(_reach(stdev(values), len(values)))
    return fmean(values) - reach, fmean(values) + reach


def speedup(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> tuple[float, Interval] | None:
    """Time of theirs / ours, and its 95 % interval: the geometric mean of what it was in each round.

    Two variants take turns within a round, so what the machine did at that time cancels. None when fewer than
    three rounds saw both.
    """
    ratios = [
        math.log(quantile(sorted(their), 0.5) / quantile(sorted(our), 0.5))
        for our, their in zip(ours, theirs, strict=False)
        if our and their
    ]
    if len(ratios) < 3:
        return None
    ratio, reach = math.exp(fmean(ratios)), _reach(stdev(ratios), len(ratios))
    return ratio, (ratio / reach, ratio * reach)


@dataclass(frozen=True, slots=True)
class Timing:
    """A summary of the samples of one variant.

    number   how many calls one sample is the mean of
    medians  of each round
    """

    n: int
    number: int
    min: float
    p20: float
    p50: float
    p80: float
    iqr: float
    medians: tuple[float, ...]
    ci95: Interval | None
    drift: float | None
    stop: Stop

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "number": self.number,
            **{name: round(getattr(self, name), 1) for name in ("min", "p20", "p50", "p80", "iqr")},
            "medians": [round(median, 1) for median in self.medians],
            "ci95": self.ci95 and [round(bound, 1) for bound in self.ci95],
            "drift": None if self.drift is None else round(self.drift, 5),
            "stop": self.stop,
        }


def summarise(rounds: Sequence[Sequence[float]], *, number: int, stop: Stop) -> Timing:
    """The samples of each round in the order of time."""
    ordered = sorted(sample for taken in rounds for sample in taken)
    return Timing(
        n=len(ordered),
        number=number,
        min=ordered[0],
        p20=quantile(ordered, 0.2),
        p50=quantile(ordered, 0.5),
        p80=quantile(ordered, 0.8),
        iqr=quantile(ordered, 0.75) - quantile(ordered, 0.25),
        medians=tuple(quantile(sorted(samples), 0.5) for samples in rounds if samples),
        ci95=rounds_interval(rounds),
        drift=drift(rounds),
        stop=stop,
    )
