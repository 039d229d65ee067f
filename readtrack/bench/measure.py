"""Measure a case: gate, time, memory; one `measurement` event per (case, variant, mode)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from readtrack.bench import gates
from readtrack.bench.case import Budget, Case, Mode, Variant
from readtrack.bench.stats import Timing, summarise

_SECONDS: dict[Budget, float] = {"smoke": 0.01, "quick": 0.4, "full": 3.0}  # of samples, per variant and mode
_MIN_BLOCK_NS = 1_000_000


def run_case(
    case: Case,
    *,
    device: torch.device,
    dtype: torch.dtype,
    budget: Budget,
    seed: int,
    emit: Callable[..., None],
    check_cancelled: Callable[[], None],
) -> None:
    """Measure every variant of `case` in every mode that it has a cost for, and emit the results.

    A variant whose `needs` is not empty is emitted as skipped; one that fails its gate is emitted with the
    reason and without a time.
    """
    for mode in case.cost:
        timings: dict[str, Timing] = {}
        checks: dict[str, gates.Check] = {}
        for variant in case.variants:
            if variant.needs:
                continue
            check_cancelled()
            before = gates.check(case, variant, mode, device=device, dtype=dtype, seed=seed)
            checks[variant.name] = before
            if before.passed:
                timing = _time(case, variant, mode, device, dtype, budget, seed, check_cancelled)
                after = gates.check(case, variant, mode, device=device, dtype=dtype, seed=seed + 1_000_003)
                checks[variant.name] = after
                if after.passed:
                    timings[variant.name] = timing
        for variant in case.variants:
            emit("measurement", **_row(case, variant, mode, device, dtype, timings, checks))


def _time(
    case: Case,
    variant: Variant,
    mode: Mode,
    device: torch.device,
    dtype: torch.dtype,
    budget: Budget,
    seed: int,
    check_cancelled: Callable[[], None],
) -> Timing:
    sets = [gates.make_inputs(case, seed + index, device, dtype) for index in range(2)]
    calls = [gates.caller(variant.call, mode, inputs) for inputs in sets]

    def block(count: int) -> int:
        _synchronize(device)
        start = time.perf_counter_ns()
        for index in range(count):
            calls[index % 2]()
        _synchronize(device)
        return time.perf_counter_ns() - start

    count, elapsed = 1, block(1)
    while elapsed < _MIN_BLOCK_NS:
        count *= 2
        elapsed = block(count)
    samples: list[float] = []
    deadline = time.perf_counter() + _SECONDS[budget]
    while len(samples) < 3 or time.perf_counter() < deadline:
        check_cancelled()
        samples.append(block(count) / count)
    return summarise(samples, block=count, stop="budget")


def _row(
    case: Case,
    variant: Variant,
    mode: Mode,
    device: torch.device,
    dtype: torch.dtype,
    timings: dict[str, Timing],
    checks: dict[str, gates.Check],
) -> dict[str, Any]:
    timing, check, cost = timings.get(variant.name), checks.get(variant.name), case.cost[mode]

    def versus(*roles: str) -> float | None:
        times = [timings[v.name].p50 for v in case.variants if v.role in roles and v.name in timings]
        return min(times) / timing.p50 if times and timing else None

    return {
        "case": case.name,
        "axes": dict(case.axes),
        "variant": variant.name,
        "role": variant.role,
        "mode": mode,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        "t_ns": timing and timing.to_json(),
        "flops": cost.flops,
        "bytes": cost.bytes,
        "tflops": cost.flops / timing.p50 / 1e3 if timing else None,
        "gbps": cost.bytes / timing.p50 if timing else None,
        "pct_ceiling": None,
        "bound": None,
        "mem": None,
        "ok": check and check.to_json(),
        "skipped": variant.needs or None,
        "vs_naive": versus("naive"),
        "vs_strong": versus("strong", "compiled"),
        "flags": [],
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
