"""Detects, from system counters, other programs that use the CPU during measurements.

The best indicator is the share of time that our threads were ready to run and had to wait, because it does
not depend on the number of threads an operation uses. With four OpenMP threads on four shared cores, an
optimiser step took 195 times as long as on free cores, and rankings were reversed.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_WAITING = 0.05  # share of the time in which our threads were ready to run
_STOLEN = 0.02  # share of the machine's time taken by the hypervisor
_OTHERS = 1 / 8  # share of the cores: two "cores" of a virtual machine may be threads of one core


@dataclass(frozen=True, slots=True)
class _Reading:
    wall: float
    cpu: float
    waited: float | None
    busy: float
    stolen: float
    throttled: float
    switches: int
    faults: int


@dataclass(frozen=True, slots=True)
class CpuContention:
    """The CPU's state during a measurement.

    cpu_util  CPU time of this process / (wall x threads); a serial operation uses one of the threads
    waiting   share of the time in which our threads were ready but did not run; None if unknown
    others    number of cores that other processes kept busy
    throttle  seconds for which the control group was throttled
    own_threads_delayed
              whether our own threads were delayed
    contended whether our threads were delayed, or other processes reduced our caches, bandwidth and clock
              speed
    """

    cpu_util: float
    waiting: float | None
    others: float
    steal: float
    throttle: float
    nivcsw: int
    minor_faults: int
    loadavg: float | None
    own_threads_delayed: bool
    contended: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "cpu_util": round(self.cpu_util, 3),
            "waiting": None if self.waiting is None else round(self.waiting, 4),
            "others": round(self.others, 2),
            "steal": round(self.steal, 4),
            "throttle": round(self.throttle, 3),
            "nivcsw": self.nivcsw,
            "minor_faults": self.minor_faults,
            "loadavg": self.loadavg,
        }


class ContentionMonitor:
    """Observes the CPU from construction on; `read` returns its state since then."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._start = _read()

    def read(self) -> CpuContention:
        start, now = self._start, _read()
        cores = psutil.cpu_count() or 1
        wall = max(now.wall - start.wall, 1e-9)
        cpu = now.cpu - start.cpu
        others = max(0.0, (now.busy - start.busy - cpu) / wall)
        stolen = (now.stolen - start.stolen) / wall / cores
        throttled = now.throttled - start.throttled
        waiting = None
        if now.waited is not None and start.waited is not None:
            # The waiting time of ended threads is lost.
            waited = max(0.0, now.waited - start.waited)
            waiting = waited / max(waited + cpu, 1e-9)
            held_up = waiting > _WAITING
        else:
            held_up = self._threads + others > cores + 0.3
        own_threads_delayed = held_up or stolen > _STOLEN or throttled > 0.01 * wall
        return CpuContention(
            cpu_util=cpu / wall / self._threads,
            waiting=waiting,
            others=others,
            steal=stolen,
            throttle=throttled,
            nivcsw=now.switches - start.switches,
            minor_faults=now.faults - start.faults,
            loadavg=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            own_threads_delayed=own_threads_delayed,
            contended=own_threads_delayed or others > _OTHERS * cores,
        )


def probe(threads: int, seconds: float = 0.05) -> bool:
    """Whether this many threads would be delayed now, tested by using all of them for a moment."""
    import torch

    numbers = torch.ones(1 << 20)
    watch = ContentionMonitor(threads)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        numbers.mul_(1.0)
    return watch.read().own_threads_delayed


def _read() -> _Reading:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # "guest" is already included in "user".
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return _Reading(
        wall=time.perf_counter(),
        cpu=time.process_time(),
        waited=_waited(),
        busy=total - idle,
        stolen=getattr(times, "steal", 0.0),
        throttled=_throttled(),
        switches=usage.ru_nivcsw,
        faults=usage.ru_minflt,
    )


def _waited() -> float | None:
    """Total seconds that our threads have waited for a core (Linux: schedstat, second number)."""
    total = 0
    if not Path("/proc/self/schedstat").exists():
        return None
    try:
        for task in os.scandir("/proc/self/task"):
            try:
                total += int(Path(task.path, "schedstat").read_text(encoding="ascii").split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread has ended
    except (OSError, IndexError, ValueError):
        return None
    return total / 1e9


def _throttled() -> float:
    """Seconds for which the CPU quota throttled our control group."""
    try:
        text = Path("/sys/fs/cgroup/cpu.stat").read_text(encoding="ascii")
    except OSError:
        return 0.0
    values = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    return int(values.get("throttled_usec", 0)) / 1e6
