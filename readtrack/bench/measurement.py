"""Converts the results of a variant to its `measurement` event.

| field | meaning |
| --- | --- |
| case, axes, variant, role, mode, dtype, device | the measured operation |
| device_id, env_id | ids of the preceding `machine` and `env` events, derived from their content |
| settings | threads, input_sets (number in rotation; null if each call has its own), cold (caches flushed |
| | before each call), graph (CUDA graph), tf32 |
| round, rounds | number of the round and of all rounds; a later event replaces an earlier one |
| t_ns | n, number (of calls in a sample), min, p20, p50, p80, iqr, medians (of the rounds), ci95 (of the |
| | median, or null), drift from round to round, stop; `value` is the time to show: p50, or min if |
| | contended. Null if a check failed |
| samples | at most 256 samples, in nanoseconds per call |
| host_ns, latency_ns | CUDA: time to enqueue a call, and time of a synchronised call |
| first_call_s | the first call alone, including compilation |
| flops, bytes, tflops, gbps | the algorithmic work and its rate; null if the case states no cost |
| pct_ceiling, bound, ceiling_id | share of this machine's ceiling, and the limiting factor; null without a |
| | calibration |
| evaluations, reported | "until": effort reported by the calls, the mean over the timed inputs; else null |
| mem | peak_bytes, method (see `readtrack.bench.memory`) |
| ok | passed, max_abs, max_rel, oracle, and the reason if it did not pass |
| quality | cpu_util, waiting, others, nivcsw, faults_per_call, ... (see `readtrack.bench.contention`) |
| skipped | the unmet requirement, or the reason why it could not be compiled; or null |
| closeness | the time on a scale from the least possible on this machine (1) to the strongest rival's |
| | (0.5); null without a calibration or a cost |
| vs_naive, vs_strong | speed-up over the naive variant, and over the strongest rival (the fastest of the |
| | strong, compiled and naive variants, if one of the first two exists): the ratio of the two values |
| vs_naive_ci95, vs_strong_ci95 | the 95 % interval of the speed-up, from its ratio in each round; null if |
| | contended |
| vs_naive_sure, vs_strong_sure | whether the interval excludes 1 |
| flags | contended, page-faults, host-bound, over-ceiling, review (10 times the strongest baseline) |
| record | whether this is a valid result: the last round, passed, with an interval, without a disqualifying
flag |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from readtrack.bench.case import Case, Mode, Role, Variant
from readtrack.bench.ceilings import Ceilings
from readtrack.bench.contention import CpuContention
from readtrack.bench.correctness import Check
from readtrack.bench.sampling import SamplingPlan
from readtrack.bench.stats import Timing, speedup

OVER_CEILING = 105.0  # percent; matrix multiplication is not quite a strict bound (a convolution reached 103)
_FAULTS = 100.0  # page faults per call
_REVIEW = 10.0  # times the strongest baseline
_KEPT = 256  # samples
_NO_RECORD = {"contended", "over-ceiling", "review"}


@dataclass(slots=True)
class VariantResult:
    """Results of one variant of a case in one mode, before they become a measurement."""

    variant: Variant
    check: Check | None = None
    timing: Timing | None = None
    rounds: list[list[float]] = field(default_factory=list)
    memory: dict[str, Any] | None = None
    host_ns: float | None = None
    latency_ns: float | None = None
    graph: bool = False
    faults_per_call: float | None = None
    flags: list[str] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.check is not None and self.check.passed

    def too_long_for(self, plan: SamplingPlan) -> bool:
        """Whether one call takes longer than all rounds may take. If so, only the first round samples it."""
        return self.timing is not None and self.timing.p50 > plan.rounds * plan.seconds * 1e9

    def skip(self, reason: str) -> None:
        self.variant, self.check = replace(self.variant, needs=reason), None

    def flag(self, name: str) -> None:
        if name not in self.flags:
            self.flags.append(name)

    @property
    def value(self) -> float | None:
        """The time to show and compare. Under load only the minimum is repeatable."""
        if self.timing is None or not self.alive:
            return None
        return self.timing.min if self.contended else self.timing.p50

    @property
    def contended(self) -> bool:
        return "contended" in self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementContext:
    """Data shared by all variants of a case in one mode. touched: bytes of an input set and its outputs."""

    case: Case
    mode: Mode
    dtype: str
    device: str
    device_id: str
    env_id: str
    round_number: int
    rounds: int
    threads: int
    input_sets: int | None
    touched: float
    cold: bool
    ceilings: Ceilings | None
    quality: CpuContention | None
    lock_wait_s: float


def measurement_event(
    result: VariantResult, results: Sequence[VariantResult], where: MeasurementContext
) -> dict[str, Any]:
    """The fields of the event; `results` are all variants to compare with."""
    cost, value = where.case.cost[where.mode], result.value
    cold = where.cold and not result.graph
    timing = None if value is None else result.timing
    strongest = _strongest(results)
    ceiling = _ceiling(where, value, strongest.value if strongest else None, cold)
    versus = {
        **_against("vs_naive", result, _fastest(results, "naive")),
        **_against("vs_strong", result, strongest),
    }
    flags = [*result.flags, *_flags(result, ceiling["pct_ceiling"], versus["vs_strong"])]
    samples = [sample for taken in result.rounds for sample in taken]
    stride = -(-len(samples) // _KEPT) or 1
    last = where.round_number == where.rounds
    return {
        "case": where.case.name,
        "axes": dict(where.case.axes),
        "variant": result.variant.name,
        "role": result.variant.role,
        "mode": where.mode,
        "dtype": where.dtype,
        "device": where.device,
        "device_id": where.device_id,
        "env_id": where.env_id,
        "round": where.round_number,
        "rounds": where.rounds,
        "settings": {
            "threads": where.threads,
            "input_sets": where.input_sets,
            "cold": cold,
            "graph": result.graph,
            "tf32": False,
        },
        "t_ns": {**timing.to_json(), "value": round(value, 1)} if timing and value else None,
        "samples": [round(sample) for sample in samples[::stride]] if timing and last else [],
        "host_ns": result.host_ns,
        "latency_ns": result.latency_ns,
        "first_call_s": result.check.first_call_s if result.check else None,
        "flops": cost and cost.flops,
        "bytes": cost and cost.bytes,
        "tflops": cost.flops / value / 1e3 if value and cost and cost.flops else None,
        "gbps": cost.bytes / value if value and cost else None,
        **ceiling,
        "evaluations": result.check.reported.get("evaluations") if result.check else None,
        "reported": dict(result.check.reported) if result.check and where.mode == "until" else None,
        "mem": result.memory if timing else None,
        "ok": result.check.to_json() if result.check else None,
        "quality": {
            **(where.quality.to_json() if where.quality else {}),
            "faults_per_call": result.faults_per_call,
            "lock_wait_s": round(where.lock_wait_s, 3),
        },
        "skipped": result.variant.needs or None,
        **versus,
        "flags": flags,
        "record": last and bool(timing and timing.ci95) and not _NO_RECORD & set(flags),
    }


def _ceiling(
    where: MeasurementContext, value: float | None, rival: float | None, cold: bool
) -> dict[str, Any]:
    cost, ceilings = where.case.cost[where.mode], where.ceilings
    if value is None or cost is None or ceilings is None or where.dtype not in ceilings.flops:
        return {"pct_ceiling": None, "bound": None, "ceiling_id": None, "closeness": None}
    least, decides = ceilings.attainable_ns(
        where.dtype,
        cost.flops,
        cost.bytes,
        touched=math.inf if cold else min(where.touched, cost.bytes),
        in_place=where.mode == "step",
    )
    return {
        "pct_ceiling": 100 * least / value,
        "bound": ceilings.bound(decides, value),
        "ceiling_id": ceilings.id,
        "closeness": closeness(value, rival, least),
    }


def closeness(value: float, rival: float | None, least: float) -> float | None:
    """A time on a scale with 1 for the least possible, 0.5 for the strongest rival's, and 0 for infinity.

    None without a rival, or if the rival itself is at the limit.
    """
    if rival is None or rival <= least:
        return None
    return 1 / (1 + max(0.0, value - least) / (rival - least))


def _fastest(results: Sequence[VariantResult], *roles: Role) -> VariantResult | None:
    measured = [
        (result.value, result)
        for result in results
        if result.variant.role in roles and result.value is not None
    ]
    return min(measured, key=lambda found: found[0])[1] if measured else None


def _strongest(results: Sequence[VariantResult]) -> VariantResult | None:
    """The rival: the fastest strong or compiled variant, or the naive one if that is even faster."""
    declared = _fastest(results, "strong", "compiled")
    return declared and _fastest([declared, *results], "naive", "strong", "compiled")


def _against(name: str, result: VariantResult, fastest: VariantResult | None) -> dict[str, Any]:
    """The speed-up over the fastest of other variants, its interval, and whether the interval excludes 1."""
    if result.value is None or fastest is None or fastest.value is None:
        return {name: None, f"{name}_ci95": None, f"{name}_sure": False}
    ratio = fastest.value / result.value
    found = None if result is fastest or result.contended else speedup(result.rounds, fastest.rounds)
    if found is None:
        return {name: ratio, f"{name}_ci95": None, f"{name}_sure": False}
    low, high = min(ratio, found[1][0]), max(ratio, found[1][1])
    return {name: ratio, f"{name}_ci95": [low, high], f"{name}_sure": low > 1 or high < 1}


def _flags(result: VariantResult, pct_ceiling: float | None, vs_strong: float | None) -> list[str]:
    flags = []
    if result.value is not None and result.faults_per_call is not None and result.faults_per_call > _FAULTS:
        flags.append("page-faults")
    if pct_ceiling is not None and pct_ceiling > OVER_CEILING:
        flags.append("over-ceiling")
    if (
        result.variant.role in ("paper", "paper compiled", "vendor")
        and vs_strong is not None
        and vs_strong > _REVIEW
    ):
        flags.append("review")
    return flags
