"""Tests sampling and its statistics on a simulated machine with known noise, drift and outliers."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import NormalDist

import pytest

from readtrack.bench.compare import verdict
from readtrack.bench.sampling import PLANS, Blocks, SampleSeries, collect
from readtrack.bench.stats import (
    Timing,
    independent_count,
    median_interval,
    median_rank,
    quantile,
    ratio_interval,
    speedup,
    student_t,
    summarise,
)

TRIALS = 200
QUIET = (0.002, 0.01, 0.02)  # interquartile range of a block, relative: the guide's noise levels


@dataclass
class Machine:
    """A clock that advances only with simulated work."""

    seed: int
    drift: Callable[[float], float] = lambda seconds: 1.0
    now: int = 0
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    def clock(self) -> int:
        return self.now

    def work(
        self, call_ns: float, iqr: float, *, outliers: float = 0.0, alike: float = 0.0
    ) -> Callable[[int], int]:
        """Simulated blocks of calls of `call_ns`, with log-normal noise, rare outliers of several times
        the duration, and the given correlation between neighbours.
        """
        state = 0.0

        def run(count: int) -> int:
            nonlocal state
            state = alike * state + math.sqrt(1 - alike**2) * self.draw.gauss(0, 1)
            factor = math.exp(iqr / 1.349 * state) * self.drift(self.now / 1e9)
            if self.draw.random() < outliers:
                factor *= 1 + self.draw.expovariate(2)
            elapsed = round(count * call_ns * factor)
            self.now += elapsed
            return elapsed

        return run


def measured(machine: Machine, *works: Callable[[int], int], budget: str = "full") -> list[SampleSeries]:
    """One round."""
    return collect([Blocks(work) for work in works], PLANS[budget], machine.clock, lambda: None)


def timings(
    machine: Machine, *works: Callable[[int], int], budget: str = "full", pause: int = 0
) -> list[Timing]:
    """All rounds, with a pause of `pause` ns between them for other variants."""
    rounds = []
    for _ in range(PLANS[budget].rounds):
        rounds.append(measured(machine, *works, budget=budget))
        machine.now += pause
    return [
        summarise([series.samples for series in all_series], number=1, stop=all_series[-1].stop)
        for all_series in zip(*rounds, strict=True)
    ]


def trials(call_ns: float, iqr: float, **noise: float) -> Iterator[list[Timing]]:
    """Two equal variants and one that is 3 % slower, measured together."""
    for seed in range(TRIALS):
        machine = Machine(seed)
        works = [machine.work(ns, iqr, **noise) for ns in (call_ns, call_ns, 1.03 * call_ns)]
        yield timings(machine, *works)


def test_the_rank_is_the_largest_that_keeps_the_rate() -> None:
    for n in range(6, 200):
        rank = median_rank(n)
        missed = [2 * sum(math.comb(n, k) for k in range(end)) / 2**n for end in (rank, rank + 1)]
        assert missed[0] <= 0.05 < missed[1], n


def test_too_few_samples_have_no_interval() -> None:
    assert median_rank(5) is None
    assert median_rank(7, confidence=0.99) is None
    assert median_rank(8, confidence=0.99) == 1
    assert median_interval([1.0] * 5) is None
    assert summarise([[3.0, 1.0, 2.0]], number=1, stop="budget").ci95 is None


def test_the_rank_of_very_many_samples_continues_the_exact_one() -> None:
    assert median_rank(1001) - median_rank(1000) in (0, 1)
    assert median_rank(5000) == pytest.approx(2500 - 1.96 * math.sqrt(5000) / 2, abs=1)


@pytest.mark.parametrize("iqr", QUIET)
@pytest.mark.parametrize("outliers", [0.0, 0.05])
@pytest.mark.parametrize("call_ns", [20_000, 3_000_000])
def test_the_interval_covers_the_median_and_tells_three_percent_from_nothing(
    call_ns: float, iqr: float, outliers: float
) -> None:
    # One-sided outliers shift the sample median to this quantile of the clean noise.
    truth = call_ns * math.exp(iqr / 1.349 * NormalDist().inv_cdf(0.5 / (1 - outliers)))
    covered, equal, slower = [], [], []
    for a, b, c in trials(call_ns, iqr, outliers=outliers):
        covered += [one.ci95[0] <= truth <= one.ci95[1] for one in (a, b)]
        equal.append(verdict(a.p50, a.ci95, b.p50, b.ci95))
        slower.append(verdict(a.p50, a.ci95, c.p50, c.ci95))
    # 95 % minus three standard errors of 2 x 200 trials.
    assert sum(covered) / len(covered) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(covered))
    assert slower.count("SLOWER") >= 0.97 * TRIALS
    assert not {"SAME", "FASTER"} & set(slower)
    assert equal.count("SAME") >= 0.97 * TRIALS
    assert not {"SLOWER", "FASTER"} & set(equal)


def test_the_interval_covers_under_drift() -> None:
    """The machine slows down by 1 % per second. The true value is the level in the middle of the
    measurement.
    """
    found = []
    for seed in range(TRIALS):
        machine = Machine(seed, drift=lambda seconds: 1 + 0.01 * seconds)
        [series] = measured(machine, machine.work(2_000_000, 0.01))
        middle = (machine.now - series.spent / 2) / 1e9
        low, high = median_interval(series.samples)
        found.append(low <= 2_000_000 * (1 + 0.01 * middle) <= high)
    assert sum(found) / TRIALS >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS)


def test_alike_neighbours_count_for_fewer_samples() -> None:
    """Neighbouring samples have a correlation of 0.7, so the naive interval is far too narrow."""
    covered = plain = 0
    for seed in range(TRIALS):
        work = Machine(seed).work(1e6, 0.02, alike=0.7)
        samples = [float(work(1)) for _ in range(100)]
        low, high = median_interval(samples)
        covered += low <= 1e6 <= high
        ordered, rank = sorted(samples), median_rank(100)
        plain += ordered[rank - 1] <= 1e6 <= ordered[100 - rank]
    assert covered / TRIALS >= 0.87
    assert plain / TRIALS <= 0.75


def test_independent_samples_all_count() -> None:
    draw = random.Random(1)
    counts = [independent_count([draw.gauss(0, 1) for _ in range(100)]) for _ in range(100)]
    assert quantile(sorted(counts), 0.5) == 100
    assert independent_count([5.0] * 20) == 20


def test_interleaving_takes_a_drift_out_of_the_comparison() -> None:
    """With a drift of 5 % over the measurement, equal variants must not look different."""
    for seed in range(50):
        machine = Machine(seed, drift=lambda seconds: 1 + 0.05 * min(seconds, 1.0))
        a, b, c = timings(machine, *(machine.work(4_000_000, 0.005) for _ in range(3)))
        for other in (b, c):
            assert other.p50 == pytest.approx(a.p50, rel=0.01)
            assert verdict(a.p50, a.ci95, other.p50, other.ci95) in ("SAME", "UNCLEAR")


def wandering(seed: int, spread: float) -> Callable[[float], float]:
    """A machine whose speed changes every ten seconds."""
    return lambda seconds: math.exp(random.Random(f"{seed} {int(seconds / 10)}").gauss(0, spread))


@pytest.mark.parametrize("spread", [0.01, 0.03])
def test_the_interval_knows_a_machine_that_wanders(spread: float) -> None:
    """The samples of a single round would make two runs at different times significantly different."""
    covered = narrow = 0
    for seed in range(TRIALS):
        machine = Machine(seed, drift=wandering(seed, spread))
        [found] = timings(machine, machine.work(1_000_000, 0.005), pause=10_000_000_000)
        covered += found.ci95[0] <= 1_000_000 <= found.ci95[1]
        [series] = measured(machine, machine.work(1_000_000, 0.005))
        low, high = median_interval(series.samples)
        narrow += low <= 1_000_000 <= high
    assert covered / TRIALS >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS)
    assert narrow / TRIALS <= 0.3


def test_machine_noise_cancels_in_a_speedup() -> None:
    covered, reaches = 0, []
    for seed in range(TRIALS):
        draw = random.Random(seed)
        level = [math.exp(draw.gauss(0, 0.2)) for _ in range(5)]
        ours, theirs = (
            [[ns * x * math.exp(draw.gauss(0, 0.01)) for _ in range(9)] for x in level]
            for ns in (100.0, 150.0)
        )
        ratio, (low, high) = speedup(ours, theirs)
        covered += low <= 1.5 <= high
        reaches.append(high / ratio)
    assert covered / TRIALS >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS)
    assert quantile(sorted(reaches), 0.5) < 1.02
    assert speedup(ours[:2], theirs[:2]) is None


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_students_t_matches_scipys_for_every_number_of_degrees_of_freedom(confidence: float) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    for df in (*range(1, 40), 60, 100, 999, 10_000):
        expected = scipy_stats.t.ppf((1 + confidence) / 2, df)
        assert student_t(df, confidence) == pytest.approx(expected, rel=1e-9)


def test_a_ratio_interval_covers_at_the_rate_of_its_parts() -> None:
    draw = random.Random(3)
    covered = 0
    for _ in range(500):
        samples = [[centre * math.exp(draw.gauss(0, 0.02)) for _ in range(40)] for centre in (130.0, 100.0)]
        (above, below), (upper, lower) = (
            [quantile(sorted(s), 0.5) for s in samples],
            [median_interval(s) for s in samples],
        )
        low, high = ratio_interval(above, upper, below, lower)
        covered += low <= 1.3 <= high
    assert 0.93 <= covered / 500 <= 0.99


def test_blocks_grow_until_the_clock_costs_nothing() -> None:
    machine = Machine(0)
    source = Blocks(machine.work(800, 0.01))
    source.warm_up(PLANS["quick"])
    assert 1_000_000 <= source.number * 800 <= 1_600_000
    slow = Blocks(machine.work(5_000_000, 0.01))
    slow.warm_up(PLANS["quick"])
    assert slow.number == 1


def test_a_long_call_that_was_made_before_needs_no_warm_up() -> None:
    machine = Machine(0)
    Blocks(machine.work(2e9, 0.01), seconds=2.0).warm_up(PLANS["full"])
    assert machine.now == 0


def test_the_warm_up_lasts_until_the_time_is_steady() -> None:
    """The clock ramps up over 300 ms, and the samples taken afterwards have the steady time."""
    machine = Machine(0, drift=lambda seconds: 1 + 3 * math.exp(-seconds / 0.03))
    source = Blocks(machine.work(2_000_000, 0.002))
    source.warm_up(PLANS["full"])
    assert source.take(1)[0] == pytest.approx(2_000_000, rel=0.05)


def test_the_sampling_gives_the_reason_why_it_stopped() -> None:
    def stop(call_ns: float, iqr: float, budget: str) -> tuple[str, int, float]:
        machine = Machine(0)
        [series] = measured(machine, machine.work(call_ns, iqr), budget=budget)
        return series.stop, len(series.samples), series.spent / 1e9

    assert stop(1_000_000, 0.002, "full")[0] == "ci"
    assert stop(1_000_000, 0.3, "full")[0] == "noise-stable"
    why, count, seconds = stop(300_000_000, 0.3, "full")
    assert why == "budget"
    assert count >= 4
    assert seconds < 2
    # A call that takes longer than the whole budget is still sampled a few times, but no more.
    why, count, seconds = stop(2_000_000_000, 0.01, "quick")
    assert (why, count) == ("budget", 1)


def test_the_smoke_budget_is_milliseconds() -> None:
    machine = Machine(0)
    measured(machine, *(machine.work(5_000, 0.01) for _ in range(4)), budget="smoke")
    assert machine.now < 0.1e9
