"""Compares our times with those of torch's own timer."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from readtrack.bench.contention import ContentionMonitor
from readtrack.bench.sampling import PLANS, Blocks, collect
from readtrack.bench.timers import HostClock

CPU = torch.device("cpu")


TIMED: dict[str, Callable[[], Any]] = {}
_x = torch.randn(256, 256)
_v = torch.randn(1 << 18)
_q = torch.randn(1, 2, 128, 32)
TIMED["matmul"] = lambda: _x @ _x
TIMED["softmax"] = lambda: _x.softmax(-1)
TIMED["add"] = lambda: _v + _v
TIMED["attention"] = lambda: torch.nn.functional.scaled_dot_product_attention(_q, _q, _q)
TIMED["small add"] = lambda: _x[0] + _x[1]


@pytest.mark.parametrize("name", TIMED)
def test_it_agrees_with_torchs_timer(name: str) -> None:
    """Our times agree within 5 %. Both use the minimum over equal blocks and take turns, because other
    processes may interfere.
    """
    from torch.utils.benchmark import Timer

    call = TIMED[name]
    timer = Timer("call()", globals={"call": call}, num_threads=1)
    ours, theirs = [], []
    watch = ContentionMonitor(1)
    for _ in range(12):
        with torch.no_grad():
            plan = replace(PLANS["quick"], seconds=0.05)
            [series] = collect([Blocks(HostClock([call], CPU))], plan, time.perf_counter_ns, lambda: None)
            ours += series.samples
            theirs += [timer.timeit(series.source.number).mean * 1e9 for _ in series.samples]
        agree = min(ours) == pytest.approx(min(theirs), rel=0.05)
        if agree:
            break
    seen = watch.read()
    if seen.contended and not agree:
        times = f"{min(ours):.0f} and {min(theirs):.0f} ns"
        pytest.skip(f"others keep {seen.others:.1f} cores busy: {times}")
    assert agree, (min(ours), min(theirs))
