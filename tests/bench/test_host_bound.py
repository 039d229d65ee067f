"""Kernels that wait for the host, on CUDA with simulated clocks."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from readtrack.bench import measure
from readtrack.bench.case import Variant
from readtrack.bench.measurement import VariantResult
from readtrack.bench.sampling import PLANS
from readtrack.bench.stats import summarise
from readtrack.bench.timed import TimedCalls
from tests.bench.test_measure import CPU, case_of, matmul


def looked_at(
    monkeypatch: pytest.MonkeyPatch, *, host: float, wall: float, captures: bool = True
) -> VariantResult:
    """A variant of 30 µs on the device, measured on a host that needs `host` ns per call."""

    class Graph:
        number = 2

        def __init__(self, calls: Any, device: Any) -> None:
            if not captures:
                raise RuntimeError("operation not permitted when stream is capturing")

        def warm_up(self, plan: Any) -> None:
            pass

        def rewarm(self) -> None:
            pass

        def take(self, count: int) -> list[float]:
            return [20_000.0] * count

    monkeypatch.setattr(measure.timers, "host_and_wall", lambda *_: (host, wall))
    monkeypatch.setattr(measure.timers, "latency", lambda *_: host + 40_000)
    monkeypatch.setattr(measure.timers, "CudaGraph", Graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    session = measure._Session(CPU, torch.float32, "quick", 0, lambda event, **_: None, lambda: None)
    timing = summarise([[30_000.0] * 10], number=1, stop="ci")
    result = VariantResult(Variant(name="x", role="paper", call=matmul), timing=timing)
    checker = measure.correctness.CorrectnessCheck(
        case_of(), "forward", device=CPU, dtype=torch.float32, seed=0
    )
    calls = TimedCalls(checker, result.variant, None)
    session._look_at_the_host(result, calls, replace(PLANS["quick"], seconds=0.01))
    return result


def test_a_quick_host_leaves_the_events_time(monkeypatch: pytest.MonkeyPatch) -> None:
    result = looked_at(monkeypatch, host=10_000, wall=31_000)
    assert (result.host_ns, result.latency_ns) == (10_000, 50_000)
    assert (result.flags, result.graph, result.timing.p50) == ([], False, 30_000)


def test_a_slow_host_is_flagged_and_a_graph_gives_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    result = looked_at(monkeypatch, host=60_000, wall=61_000)
    assert (result.flags, result.graph, result.timing.p50, result.timing.number) == (
        ["host-bound"],
        True,
        20_000,
        2,
    )


def test_calls_that_cannot_be_captured_keep_the_events_time(monkeypatch: pytest.MonkeyPatch) -> None:
    result = looked_at(monkeypatch, host=60_000, wall=61_000, captures=False)
    assert (result.flags, result.graph, result.timing.p50) == (["host-bound"], False, 30_000)


def test_work_on_a_stream_that_the_events_do_not_see_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_at(monkeypatch, host=10_000, wall=500_000).flags == ["review"]
