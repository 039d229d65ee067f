"""Compare two runs: which measurements became faster or slower, and which are undecided.

On the same device times are compared. Across devices only the share of the ceiling and the speed-up over the
same baseline in the same run are compared. Does not import torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, Protocol

from readtrack.bench.stats import Interval, ratio_interval

Verdict = Literal["SAME", "FASTER", "SLOWER", "UNCLEAR"]
Measurement = Mapping[str, Any]

DEAD_BAND = 0.02
_COARSEST = 0.10  # with a wider dead band, two times within it are not reported as the same
_OF_THE_DRIFT = (
    4.0  # so that the interval of two equal runs (1.8 times the drift with five rounds) fits inside
)


class HasMeasurements(Protocol):
    """The part of a run's record that a comparison uses."""

    @property
    def paper(self) -> str: ...

    @property
    def measurements(self) -> Sequence[Measurement]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkComparison:
    """One (case, variant, mode, dtype) in two runs, a and b.

    verdict   of b against a: SAME (the ratio's interval lies inside the dead band, which is at most ±10 %),
              FASTER or SLOWER (the medians differ by more than the band and the interval excludes 1), else
              UNCLEAR; None across devices or thread counts, and where a run has no time
    ratio     time of b / time of a, with its 95 % interval
    note      why there is no verdict, or why it is unclear
    a, b      the measurements; None if a run lacks it
    """

    case: str
    axes: Mapping[str, Any]
    variant: str
    mode: str
    dtype: str
    verdict: Verdict | None
    ratio: float | None
    ratio_ci95: Interval | None
    note: str
    a: Measurement | None
    b: Measurement | None

    def to_json(self) -> dict[str, Any]:
        def shown(measurement: Measurement | None) -> dict[str, Any] | None:
            names = ("t_ns", "pct_ceiling", "vs_naive", "vs_strong", "device", "device_id", "env_id", "flags")
            return None if measurement is None else {name: measurement.get(name) for name in names}

        return {
            "case": self.case,
            "axes": dict(self.axes),
            "variant": self.variant,
            "mode": self.mode,
            "dtype": self.dtype,
            "verdict": self.verdict,
            "ratio": self.ratio,
            "ratio_ci95": self.ratio_ci95 and list(self.ratio_ci95),
            "note": self.note,
            "a": shown(self.a),
            "b": shown(self.b),
        }


def verdict(a: float, a_ci: Interval, b: float, b_ci: Interval, *, band: float = DEAD_BAND) -> Verdict:
    """Verdict on time b against time a from medians and 95 % intervals."""
    ratio = b / a
    low, high = ratio_interval(b, b_ci, a, a_ci)
    if low >= 1 / (1 + band) and high <= 1 + band:
        return "SAME"
    if ratio > 1 + band and low > 1:
        return "SLOWER"
    if ratio < 1 / (1 + band) and high < 1:
        return "FASTER"
    return "UNCLEAR"


def compare(record_a: HasMeasurements, record_b: HasMeasurements) -> list[BenchmarkComparison]:
    """Compare all measurements of two runs of one paper, in the order of `record_a`, then the rest of
    `record_b`.

    The dead band is `resolution`. Measurements for which `is_whole` is false are left out. Raises ValueError
    if the runs belong to different papers.
    """
    if record_a.paper != record_b.paper:
        raise ValueError(f"The runs belong to two papers: {record_a.paper} and {record_b.paper}.")
    ours, theirs = _by_key(record_a.measurements), _by_key(record_b.measurements)
    band = resolution(record_a, record_b)
    return [_pair(ours.get(key), theirs.get(key), band) for key in dict.fromkeys([*ours, *theirs])]


def resolution(record_a: HasMeasurements, record_b: HasMeasurements) -> float:
    """The dead band of two runs: 2 %, or four times the machine's drift from round to round if larger.

    A run's drift is the median over its measurements. The larger drift of the two runs counts.
    """
    drifts = [
        median(found)
        for record in (record_a, record_b)
        if (
            found := [
                t["drift"]
                for m in filter(is_whole, record.measurements)
                if (t := m["t_ns"] or {}).get("drift")
            ]
        )
    ]
    return max(DEAD_BAND, _OF_THE_DRIFT * max(drifts, default=0.0))


def _by_key(measurements: Iterable[Measurement]) -> dict[str, Measurement]:
    return {
        json.dumps([m["case"], m["axes"], m["variant"], m["mode"], m["dtype"]], sort_keys=True): m
        for m in filter(is_whole, measurements)
    }


def is_whole(measurement: Measurement) -> bool:
    """Whether the measurement has all fields for a comparison. A run from another machine may lack some."""
    times, flags, axes = measurement.get("t_ns"), measurement.get("flags", ()), measurement.get("axes")
    return (
        all(isinstance(measurement.get(name), str) for name in ("case", "variant", "mode", "dtype"))
        and isinstance(axes, dict)
        and all(isinstance(value, str | int | float) for value in axes.values())
        and isinstance(flags, list | tuple)
        and all(isinstance(flag, str) for flag in flags)
        and all(isinstance(measurement.get(name) or {}, dict) for name in ("settings", "ok"))
        and (times is None or (isinstance(times, dict) and _are_times(times)))
    )


def _are_times(times: Mapping[str, Any]) -> bool:
    interval, drift = times.get("ci95") or [1.0, 1.0], times.get("drift") or 0.0
    return (
        isinstance(interval, list | tuple)
        and len(interval) == 2
        and all(is_number(value) and value > 0 for value in (times.get("p50"), times.get("min"), *interval))
        and is_number(drift)
    )


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300 and not math.isnan(value)


def _pair(a: Measurement | None, b: Measurement | None, band: float) -> BenchmarkComparison:
    one = a or b
    assert one is not None
    found: Verdict | None = None
    ratio: float | None = None
    interval: Interval | None = None
    note = _obstacle(a, b)
    if not note and a and b:
        t_a, t_b = a["t_ns"], b["t_ns"]
        contended = [name for name, m in (("a", a), ("b", b)) if "contended" in m.get("flags", ())]
        if contended:
            # Under load only the minimum is repeatable, and it has no interval.
            ratio, found, note = t_b["min"] / t_a["min"], "UNCLEAR", f"contended in {' and '.join(contended)}"
        elif not t_a["ci95"] or not t_b["ci95"]:
            ratio, found, note = t_b["p50"] / t_a["p50"], "UNCLEAR", "too few samples for an interval"
        else:
            ci_a, ci_b = tuple(t_a["ci95"]), tuple(t_b["ci95"])
            ratio, interval = t_b["p50"] / t_a["p50"], ratio_interval(t_b["p50"], ci_b, t_a["p50"], ci_a)
            found = verdict(t_a["p50"], ci_a, t_b["p50"], ci_b, band=band)
            if found == "SAME" and band > _COARSEST:
                found, note = "UNCLEAR", "the machine drifts too much to tell whether the times are the same"
    return BenchmarkComparison(
        case=one["case"],
        axes=one["axes"],
        variant=one["variant"],
        mode=one["mode"],
        dtype=one["dtype"],
        verdict=found,
        ratio=ratio,
        ratio_ci95=interval,
        note=note,
        a=a,
        b=b,
    )


def _obstacle(a: Measurement | None, b: Measurement | None) -> str:
    """Why the two times cannot be compared, or ""."""
    if a is None or b is None:
        return f"only in {'b' if a is None else 'a'}"
    for name, measurement in (("a", a), ("b", b)):
        if measurement.get("skipped"):
            return f"{name}: {measurement['skipped']}"
        if not measurement.get("t_ns"):
            return f"{name}: {(measurement.get('ok') or {}).get('reason') or 'not measured'}"
    if a.get("device_id") != b.get("device_id"):
        return "different devices: compare the share of the ceiling and the speed-ups"
    threads = [(m.get("settings") or {}).get("threads") for m in (a, b)]
    if threads[0] != threads[1]:
        return f"different threads: {threads[0]} and {threads[1]}"
    return ""
