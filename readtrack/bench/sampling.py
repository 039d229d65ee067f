"""The order and number of samples, independent of devices: the clock is an argument, and can be simulated.

Variants are interleaved by block, back and forth (A B, B A, A B, ...), so that the machine's drift affects
all of them equally. They are not interleaved call by call, because each would evict the other's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from readtrack.bench.case import Budget
from readtrack.bench.stats import Stop, half_width, median_interval, quantile

Clock = Callable[[], int]  # nanoseconds

_WINDOW = 5  # blocks, in the warm-up and in a variant's first batch
_AGREE = 0.02  # relative difference at which two warm-up windows agree
_STABLE = 64  # samples per half: if the noise of two halves is the same, more samples add nothing
_MAX_SAMPLES = 1000
_SHORT_NS = 10_000_000  # a longer sample loses little by filling the caches itself


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """How much to sample.

    rounds       number of rounds per variant, with all other variants in between, so the interval includes
                 the machine's drift over seconds or minutes
    seconds      duration of the samples for one variant in one round
    precision    sufficient relative half-width of the median's 95 % interval in a round. Five rounds reduce
                 it to a sixth of the smallest difference to detect (3 %)
    min_samples  per round, unless three times `seconds` have passed
    min_passes   batches of at most five blocks per variant before the interval is examined
    warm_up      seconds, at most, in the first round
    sample_ns    minimum length of a sample, reached by repeating calls
    """

    rounds: int = 5
    seconds: float
    precision: float = 0.01
    min_samples: int = 2
    min_passes: int = 2
    warm_up: float = 0.5
    sample_ns: int = 1_000_000

    def again(self) -> SamplingPlan:
        """The plan for a later round: only the caches are cold."""
        return replace(self, warm_up=0.1 * self.warm_up)


PLANS: dict[Budget, SamplingPlan] = {
    "smoke": SamplingPlan(rounds=1, seconds=0.004, min_passes=1, warm_up=0.002, sample_ns=100_000),
    "quick": SamplingPlan(seconds=0.1, warm_up=0.15),
    "full": SamplingPlan(seconds=1.0, min_samples=4, min_passes=4),
}


class SampleSource(Protocol):
    """Source of one variant's samples. `number` is the number of calls averaged in a sample."""

    number: int

    def warm_up(self, plan: SamplingPlan) -> None: ...

    def rewarm(self) -> None:
        """Bring the variant's own data back into the caches after another variant's."""

    def take(self, count: int) -> list[float]:
        """`count` samples, in nanoseconds per call."""


class Blocks:
    """A source that reads a clock around blocks of calls.

    run      makes that many calls, waits for their completion, and returns the nanoseconds
    seconds  time of an earlier call, if there was one, because a long call needs no warm-up
    """

    def __init__(self, run: Callable[[int], int], seconds: float = 0.0) -> None:
        self._run = run
        self._seconds = seconds
        self.number = 1

    def warm_up(self, plan: SamplingPlan) -> None:
        """Call until two successive windows of five blocks agree within 2 %, or until the time is up.

        Meanwhile the block grows until it lasts `plan.sample_ns`, so that reading the clock takes less than
        one part in 10,000.
        """
        if self._seconds > plan.warm_up:
            return
        spent = 0
        window: list[float] = []
        previous = 0.0
        while spent < plan.warm_up * 1e9 or not window:
            elapsed = self._run(self.number)
            spent += elapsed
            window.append(elapsed / self.number)
            if elapsed < plan.sample_ns:
                growth = min(10.0, 1.25 * plan.sample_ns / max(elapsed, 1))
                self.number = math.ceil(self.number * growth)
                window, previous = [], 0.0
            elif len(window) == _WINDOW:
                middle = sorted(window)[_WINDOW // 2]
                if abs(middle - previous) <= _AGREE * previous:
                    return
                window, previous = [], middle

    def rewarm(self) -> None:
        self._run(1)

    def take(self, count: int) -> list[float]:
        return [self._run(self.number) / self.number for _ in range(count)]


class MadeBlocks:
    """A source that reads a clock around blocks of calls, each prepared for its block.

    run      as in `Blocks`
    seconds  time of an earlier call
    most     number of calls that may be prepared at once
    """

    def __init__(self, run: Callable[[int], int], seconds: float, most: int) -> None:
        self._run = run
        self._seconds = seconds
        self._most = most
        self.number = 1

    def warm_up(self, plan: SamplingPlan) -> None:
        """One block, which lasts `plan.sample_ns` if the number of calls permits."""
        self.number = max(1, min(self._most, math.ceil(plan.sample_ns / 1e9 / max(self._seconds, 1e-9))))
        if self._seconds <= plan.warm_up:
            self._run(self.number)

    def rewarm(self) -> None:
        self._run(1)

    def take(self, count: int) -> list[float]:
        return [self._run(self.number) / self.number for _ in range(count)]


@dataclass(slots=True)
class SampleSeries:
    """The samples of one variant in chronological order. `error` is the exception that ended it early."""

    source: SampleSource
    samples: list[float] = field(default_factory=list)
    spent: int = 0
    stop: Stop | None = None
    error: Exception | None = None


def collect(
    sources: Sequence[SampleSource], plan: SamplingPlan, clock: Clock, check_cancelled: Callable[[], None]
) -> list[SampleSeries]:
    """Sample all sources in interleaved passes until each has a reason to stop (`SampleSeries.stop`).

    A variant with enough samples is still sampled until its time is used up, because medians of different
    periods would not be comparable when the machine drifts.
    """
    all_series = [SampleSeries(source) for source in sources]
    for series in all_series:
        check_cancelled()
        _guarded(series, partial(series.source.warm_up, plan))
    batch, passes = _WINDOW, 0
    while any(series.stop is None and series.error is None for series in all_series):
        running = [series for series in all_series if series.stop != "budget" and series.error is None]
        for series in running if passes % 2 == 0 else reversed(running):
            check_cancelled()
            if len(all_series) > 1 and series.spent < _SHORT_NS * len(series.samples):
                _guarded(series, series.source.rewarm)
            _guarded(series, partial(_take_batch, series, batch, plan, clock))
        passes += 1
        if passes >= plan.min_passes:
            # Examine the interval rarely: stopping at the first narrow one would bias it.
            batch *= 2
        for series in running:
            series.stop = _stop(series, plan, passes)
    return all_series


def _guarded(series: SampleSeries, step: Callable[[], None]) -> None:
    """Run a step of plugin code. Any exception ends only its own series."""
    if series.error is None:
        try:
            step()
        except Exception as error:
            series.error = error


def _take_batch(series: SampleSeries, batch: int, plan: SamplingPlan, clock: Clock) -> None:
    start = clock()
    if series.samples:
        left = min(plan.seconds * 1e9 - series.spent, plan.seconds * 1e9 / plan.min_passes / 2)
        batch = max(1, min(batch, int(left * len(series.samples) / max(series.spent, 1))))
    else:
        batch = 1
    series.samples += series.source.take(batch)
    series.spent += clock() - start


def _stop(series: SampleSeries, plan: SamplingPlan, passes: int) -> Stop | None:
    count = len(series.samples)
    if series.error is not None:
        return None
    if series.spent >= plan.seconds * 1e9 and (
        count >= plan.min_samples or series.spent >= 3 * plan.seconds * 1e9
    ):
        return "budget"
    if passes < plan.min_passes or count < plan.min_samples:
        return None
    middle = quantile(sorted(series.samples), 0.5)
    if half_width(median_interval(series.samples), middle) <= plan.precision:
        return "ci"
    if count >= _MAX_SAMPLES or (count >= 2 * _STABLE and _noise_is_stable(series.samples)):
        return "noise-stable"
    return None


def _noise_is_stable(samples: Sequence[float]) -> bool:
    """Whether the two halves have nearly the same median and spread."""
    half = len(samples) // 2
    earlier, later = sorted(samples[:half]), sorted(samples[half:])
    spreads = [quantile(part, 0.75) - quantile(part, 0.25) for part in (earlier, later)]
    middles = [quantile(part, 0.5) for part in (earlier, later)]
    return max(spreads) <= 1.25 * min(spreads) and abs(middles[0] - middles[1]) <= 0.1 * max(spreads)
