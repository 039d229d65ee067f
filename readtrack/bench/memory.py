"""Peak memory of one call: its allocations beyond the inputs, including the outputs."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from readtrack import devices

CALLS = 2  # maximum number of calls that `peak` makes
_KIB = 1024
_LONG = 0.5  # seconds


def peak(call: Callable[[], Any], device: torch.device, *, seconds: float = 0.0) -> dict[str, Any] | None:
    """`{"peak_bytes", "method"}` of one call. An earlier call took `seconds`.

    "cuda-alloc"  memory handed out by torch's allocator (excluding reserved memory and the context); also
                  "xpu-alloc"
    "profiler"    the CPU allocator's events summed to a running peak; on Linux with "rss_peak_bytes", the
                  high-water mark of resident memory, which includes memory from other allocators
    "rss"         only the high-water mark, because a long call makes too many events. None if not available
    "sampled"     allocated bytes, read while the call runs. Metal has no peak counter, so this is a lower
                  bound
    """
    if device.type in ("cuda", "xpu"):
        return _allocator_peak(call, device)
    if device.type == "mps":
        return _sampled_peak(call)
    high_water = _resident_peak(call)
    if seconds > _LONG:
        return None if high_water is None else {"peak_bytes": high_water, "method": "rss"}
    found = {"peak_bytes": _profiled_peak(call), "method": "profiler"}
    return found if high_water is None else {**found, "rss_peak_bytes": high_water}


def _allocator_peak(call: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    module = getattr(torch, device.type)
    module.synchronize(device)
    module.reset_peak_memory_stats(device)
    base = module.memory_allocated(device)
    call()
    module.synchronize(device)
    return {"peak_bytes": module.max_memory_allocated(device) - base, "method": f"{device.type}-alloc"}


def _profiled_peak(call: Callable[[], Any]) -> int:
    # Without this, the profiler's library logs every start and stop to stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        outputs = call()
    results = profiler.profiler.kineto_results
    del outputs
    events = [event for event in results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def _resident_peak(call: Callable[[], Any]) -> int | None:
    if sys.platform != "linux":
        return None
    _return_free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        base = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - base)
    except OSError:
        return None  # a sandbox may deny access to this file


def _return_free_memory() -> None:
    """Return free memory of earlier calls to the system, so that its reuse is not missed."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        return  # not glibc; other C libraries keep little


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * _KIB
    raise OSError(f"no {name}")


def _sampled_peak(call: Callable[[], Any]) -> dict[str, Any]:
    device = torch.device("mps")
    devices.synchronize(device)
    base = highest = torch.mps.current_allocated_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.0005):
            highest = max(highest, torch.mps.current_allocated_memory())

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    outputs = call()
    devices.synchronize(device)
    highest = max(highest, torch.mps.current_allocated_memory())
    done.set()
    watcher.join()
    del outputs
    return {"peak_bytes": highest - base, "method": "sampled"}
