"""Bounds on benchmark measurements: speed-ups, and growth of time or memory.

A claim's rule may contain them next to its bounds on metrics. `judge` computes their value and interval from
a run's `measurement` events (see `readtrack.bench.measurement`). Does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

from readtrack.bench.stats import mean_interval, speedup
from readtrack.signs import HOLDS, relation
from readtrack.text import format_number

Measurement = Mapping[str, Any]
Axes = Mapping[str, int | float | str | bool]
Op = Literal[">=", "<=", ">", "<"]
What = Literal["time", "memory"]

RUNS = 3  # number of benchmark runs, each in its own process, that judge a bound over seeds
CONTENDED = "contended"  # the flag, and the obstacle of that name
_PREVENTS = (CONTENDED, "over-ceiling")  # flags that prevent a time from being judged


class _MeasuredBound:
    """Methods that both kinds of bound share with a bound on a metric."""

    __slots__ = ()

    metric: str
    op: Op
    threshold: float

    def holds(self, ours: float) -> bool:
        return not math.isnan(ours) and HOLDS[self.op](ours, self.threshold)

    def value(self, values: Mapping[str, float], at_least: Collection[str] = ()) -> float:
        """The value under this bound's name, or NaN. A measured value is never censored."""
        return values.get(self.metric, math.nan)

    def __str__(self) -> str:
        return f"{self.metric} {relation(self.op)} {format_number(self.threshold)}"


@dataclass(frozen=True, slots=True)
class Speedup(_MeasuredBound):
    """How many times as fast one variant of a case is as another, for example
    `Speedup("causal attention", over="naive", threshold=1.07, axes={"tokens": 4096})`.

    case       name of the case
    of, over   a role or a variant's name. The fastest variant of a role counts. "strong" is the fastest of
               the strong, compiled and naive variants
    threshold  bound on time(over) / time(of)
    axes       axis values that select one point of the case; the others may be left out
    direction  the value that separates the paper's direction from the opposite one, as in a bound on a metric
    """

    case: str
    over: str = field(kw_only=True)
    threshold: float = field(kw_only=True)
    of: str = field(default="paper", kw_only=True)
    op: Op = field(default=">=", kw_only=True)
    axes: Axes = field(default_factory=dict, kw_only=True, hash=False)
    mode: str = field(default="forward", kw_only=True)
    direction: float | None = field(default=1.0, kw_only=True)

    @property
    def ratio(self) -> bool:
        """Whether the logarithm is averaged over seeds (yes)."""
        return True

    @property
    def metric(self) -> str:  # type: ignore[override]
        return f"speed of {self.of} over {self.over}, {_point(self.case, self.axes, self.mode)}"

    def to_json(self) -> dict[str, Any]:
        return {"bound": "speedup", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Growth(_MeasuredBound):
    """The exponent with which a variant's time or peak memory grows along an axis, for example
    `Growth("causal attention", what="memory", axis="tokens", threshold=1.1)`.

    case       name of the case
    what       "time" or "memory"
    axis       an axis along which the case has at least two points; the exponent is the least-squares slope
               between them on logarithmic scales
    threshold  bound on the exponent; 1 is linear growth
    of         a role or a variant's name. The fastest variant of a role counts
    axes       values of the other axes, if needed to select the points
    """

    case: str
    what: What = field(kw_only=True)
    axis: str = field(kw_only=True)
    threshold: float = field(kw_only=True)
    of: str = field(default="paper", kw_only=True)
    op: Op = field(default="<=", kw_only=True)
    axes: Axes = field(default_factory=dict, kw_only=True, hash=False)
    mode: str = field(default="forward", kw_only=True)
    direction: float | None = field(default=None, kw_only=True)

    @property
    def ratio(self) -> bool:
        """Whether the logarithm is averaged over seeds (no, the exponent itself)."""
        return False

    @property
    def metric(self) -> str:  # type: ignore[override]
        return (
            f"growth of {self.of}'s {self.what} with {self.axis}, {_point(self.case, self.axes, self.mode)}"
        )

    def to_json(self) -> dict[str, Any]:
        return {"bound": "growth", **asdict(self)}


def _point(case: str, axes: Axes, mode: str) -> str:
    return ", ".join([case, *(f"{name} {value}" for name, value in axes.items()), mode])


def from_json(fields: Mapping[str, Any]) -> Speedup | Growth:
    """The inverse of `to_json`. Raises KeyError or TypeError for other input."""
    kinds: dict[str, type[Speedup] | type[Growth]] = {"speedup": Speedup, "growth": Growth}
    return kinds[fields["bound"]](**{name: value for name, value in fields.items() if name != "bound"})


@dataclass(frozen=True, slots=True)
class BoundEstimate:
    """A bound's value in one run, with its 95 % interval.

    value     NaN if the measurements do not give one; see `obstacle`
    obstacle  why the bound cannot be judged, even if there is a value ("contended"), or ""
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    obstacle: str = ""

    def verdict(self, bound: Speedup | Growth) -> Literal["held", "missed", "not judged"]:
        """`held` or `missed` if the whole interval agrees, else `not judged`."""
        if self.obstacle:
            return "not judged"
        ends = bound.holds(self.low), bound.holds(self.high)
        return "held" if all(ends) else "not judged" if any(ends) else "missed"


def judge_runs(bound: Speedup | Growth, runs: Sequence[Sequence[Measurement]]) -> BoundEstimate:
    """The estimate from several runs of the benchmark, each in its own process.

    The rounds of one process do not show the variation between processes. The interval is
    therefore Student's over the runs, for the logarithm of a speed-up or for the exponent itself. If one run
    cannot be judged, neither can the bound.
    """
    found = [judge(bound, measurements) for measurements in runs]
    if hindered := next((one for one in found if one.obstacle), None):
        return hindered
    ratio = isinstance(bound, Speedup)
    values = [math.log(one.value) if ratio else one.value for one in found]
    interval = mean_interval(values)
    if interval is None:
        return BoundEstimate(
            obstacle=f"{len(runs)} of {RUNS} benchmarks have run" if runs else "not measured"
        )
    value, low, high = (math.exp(x) if ratio else x for x in (fmean(values), *interval))
    return BoundEstimate(value, low, high)


def judge(bound: Speedup | Growth, measurements: Iterable[Measurement]) -> BoundEstimate:
    """The estimate from the last measurements of a run."""
    of_case = [
        m
        for m in measurements
        if m["case"] == bound.case
        and m["mode"] == bound.mode
        and all(m["axes"].get(name) == value for name, value in bound.axes.items())
    ]
    if not of_case:
        return BoundEstimate(obstacle="not measured")
    return _speedup(bound, of_case) if isinstance(bound, Speedup) else _growth(bound, of_case)


def _speedup(bound: Speedup, measurements: Sequence[Measurement]) -> BoundEstimate:
    if len(_points(measurements)) > 1:
        return BoundEstimate(obstacle=f"{bound.case!r} has several points. Select one with axes")
    ours, theirs = _fastest(measurements, bound.of), _fastest(measurements, bound.over)
    if isinstance(ours, str) or isinstance(theirs, str):
        return BoundEstimate(obstacle=ours if isinstance(ours, str) else str(theirs))
    value = theirs["t_ns"]["value"] / ours["t_ns"]["value"]
    if hindrance := _flagged([ours, theirs]):
        return BoundEstimate(value, obstacle=hindrance)
    found = speedup(_medians(ours), _medians(theirs))
    if found is None:
        return BoundEstimate(value, obstacle="too few rounds for an interval")
    # The value is the ratio of the times shown; the mean over rounds may differ slightly.
    return BoundEstimate(value, min(value, found[1][0]), max(value, found[1][1]))


def _growth(bound: Growth, measurements: Sequence[Measurement]) -> BoundEstimate:
    points: list[tuple[float, Measurement]] = []
    for point in _points(measurements):
        here = [m for m in measurements if _key(m["axes"]) == point]
        size = here[0]["axes"].get(bound.axis)
        chosen = _fastest(here, bound.of)
        if isinstance(size, (str, bool, type(None))):
            return BoundEstimate(obstacle=f"{bound.axis!r} is not a numeric axis of {bound.case!r}")
        if isinstance(chosen, str):
            return BoundEstimate(obstacle=chosen)
        points.append((math.log(size), chosen))
    sizes = [size for size, _ in points]
    if len(set(sizes)) < len(sizes):
        return BoundEstimate(
            obstacle=f"{bound.case!r} has several points at one {bound.axis}. Fix the other axes"
        )
    if len(sizes) < 2:
        return BoundEstimate(obstacle=f"a single point along {bound.axis}")
    rows = [row for _, row in points]
    if bound.what == "memory":
        peaks = [(row.get("mem") or {}).get("peak_bytes") for row in rows]
        if not all(peaks):
            return BoundEstimate(obstacle="memory was not measured")
        value = _slope(sizes, [math.log(peak) for peak in peaks if peak])
        return BoundEstimate(value, value, value)
    value = _slope(sizes, [math.log(row["t_ns"]["value"]) for row in rows])
    if hindrance := _flagged(rows):
        return BoundEstimate(value, obstacle=hindrance)
    rounds = zip(*([math.log(median) for [median] in _medians(row)] for row in rows), strict=False)
    interval = mean_interval([_slope(sizes, times) for times in rounds])
    if interval is None:
        return BoundEstimate(value, obstacle="too few rounds for an interval")
    return BoundEstimate(value, min(value, interval[0]), max(value, interval[1]))


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def _points(measurements: Iterable[Measurement]) -> list[tuple[tuple[str, Any], ...]]:
    return list(dict.fromkeys(_key(m["axes"]) for m in measurements))


def _key(axes: Axes) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(axes.items()))


def _fastest(measurements: Sequence[Measurement], who: str) -> Measurement | str:
    """The fastest measurement for a role or a variant, or the reason why there is none."""
    roles = ("strong", "compiled") if who == "strong" else (who,)
    found = [m for m in measurements if m["variant"] == who or m["role"] in roles]
    measured = [m for m in found if m.get("t_ns")]
    if measured:
        naive = [m for m in measurements if who == "strong" and m["role"] == "naive" and m.get("t_ns")]
        return min(measured + naive, key=lambda m: float(m["t_ns"]["value"]))
    if not found:
        return f"there is no {who!r}"
    reason = found[0].get("skipped") or (found[0].get("ok") or {}).get("reason") or "not measured"
    return f"{found[0]['variant']}: {reason}"


def _flagged(measurements: Iterable[Measurement]) -> str:
    flags = [flag for m in measurements for flag in m.get("flags") or () if flag in _PREVENTS]
    return flags[0] if flags else ""


def _medians(measurement: Measurement) -> list[list[float]]:
    """The median of each round, each as a single sample."""
    return [[median] for median in measurement["t_ns"].get("medians") or ()]
