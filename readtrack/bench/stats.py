"""Statistics of repeated timings, as pure functions without clock or device.

The module uses medians, because timings are skewed to the right. Their intervals come from order statistics,
which do not depend on the distribution of the noise. A sample is a time in nanoseconds per call.
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
    """The q-quantile of sorted values, with linear interpolation."""
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median_rank(n: int, confidence: float = 0.95) -> int | None:
    """The largest r for which (x[r-1], x[n-r]) covers the median of n independent samples with `confidence`.

    None if even the whole range does not (n < 6 for 95 %). The sum of C(n, k) / 2^n over k < r is at most
    half of the allowed error (David & Nagaraja, Order Statistics, section 7.1).
    """
    allowed = (1 - confidence) / 2
    if n > 1000:  # 2^-n underflows, and the normal approximation is accurate to one rank
        return math.floor((n + NormalDist().inv_cdf(allowed) * math.sqrt(n)) / 2)
    below, term, r = 0.0, 0.5**n, 0
    while r < n and below + term <= allowed:
        below += term
        r += 1
        term *= (n - r + 1) / r
    return r or None


def independent_count(samples: Sequence[float]) -> int:
    """The effective number of independent samples for the median; `samples` in chronological order.

    Drift and bursts correlate neighbouring samples, so an interval that counts each as independent is too
    narrow. With r the correlation of "above the median" between neighbours, n samples are worth n (1 - r) /
    (1 + r), as in a first-order autoregression. A correlation that chance explains counts as zero.
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
    """Confidence interval of the median of samples in chronological order; None if there are too few.

    For correlated samples the ranks move outwards, in accordance with the effective number of samples.
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

    The distances to the bounds are added in quadrature on a log scale (Zou & Donner 2008, Statistics in
    Medicine 27, the MOVER method), which preserves their confidence; dividing bound by bound would give a far
    too wide interval.
    """
    ratio = above / below
    down = math.hypot(math.log(above / above_ci[0]), math.log(below_ci[1] / below))
    up = math.hypot(math.log(above_ci[1] / above), math.log(below / below_ci[0]))
    return ratio * math.exp(-down), ratio * math.exp(up)


@cache
def student_t(df: int, confidence: float = 0.95) -> float:
    """The two-sided quantile of Student's distribution: |t| exceeds it with probability 1 - confidence.

    Bisects the distribution function (Abramowitz & Stegun, 26.7.3 and 26.7.4), with `df` degrees of
    freedom.
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
    """Standard deviation of the log medians of the rounds; None with fewer than three rounds.

    It measures the variation of the machine itself between rounds: clock, other programs, page placement.
    """
    medians = [math.log(quantile(sorted(samples), 0.5)) for samples in rounds if samples]
    return stdev(medians) if len(medians) >= 3 else None


def rounds_interval(rounds: Sequence[Sequence[float]]) -> Interval | None:
    """Confidence interval (95 %) of the median over several rounds' samples in chronological order.

    It spans two intervals: one from all samples, and Student's interval around the median, from the variation
    of the rounds' medians. Samples of one round share the machine's state at that time, so even many of them
    do not show its variation.
    """
    samples = [sample for taken in rounds for sample in taken]
    within, between = median_interval(samples), drift(rounds)
    if within is None or between is None:
        return within
    reach = _reach(between, sum(1 for taken in rounds if taken))
    middle = quantile(sorted(samples), 0.5)
    return min(within[0], middle / reach), max(within[1], middle * reach)


def _reach(deviation: float, count: int) -> float:
    """The factor by which Student's 95 % interval extends around the geometric mean of `count` values."""
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
    """The ratio of time theirs / ours, as a geometric mean over rounds, and its 95 % interval.

    Two variants alternate within a round, so the machine's state cancels. None if fewer than three rounds
    have both.
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

    number   number of calls that one sample averages
    medians  the median of each round
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
    """Summarise the samples of each round, in chronological order."""
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
