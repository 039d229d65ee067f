"""Timers for each kind of device.

CPU    the host's clock around blocks of calls
CUDA   an event pair per call, with caches flushed before each call and one synchronisation at the end. Also
       the host's time to enqueue a call, and the wall time of a synchronised call. If the host is slower, a
       CUDA graph gives the device's time
MPS    the host's clock around synchronised blocks of calls. XPU works the same way

The CUDA, MPS and XPU clocks were tested only against fakes, without such a device.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from readtrack import devices
from readtrack.bench.sampling import SamplingPlan

Call = Callable[[], Any]
Calls = Callable[[int], Sequence[Call]]  # prepares the given number of calls before timing

_BATCH = 64  # calls enqueued before synchronising; the launch queue holds about 1,000
_FLUSH_BYTES = 256 << 20  # or twice the L2 cache, if that is larger
_SLEEP_CLOCK = 2  # lower bound of cycles per nanosecond; sleeping longer does no harm


def _maker(calls: Sequence[Call] | Calls) -> Calls:
    """A function that prepares calls. If calls are given, they take turns."""
    if callable(calls):
        return calls
    return lambda count: list(itertools.islice(itertools.cycle(calls), count))


class HostClock:
    """Times blocks of calls and counts page faults. `calls` take turns or are prepared for each block."""

    def __init__(self, calls: Sequence[Call] | Calls, device: torch.device) -> None:
        self._calls = _maker(calls)
        self._device = device
        self._faults: list[float] = []

    @property
    def faults_per_call(self) -> float:
        """Page faults per call: the median over blocks, because the first blocks always fault."""
        return sorted(self._faults)[len(self._faults) // 2] if self._faults else 0.0

    def __call__(self, count: int) -> int:
        """Nanoseconds until `count` calls are complete."""
        order = self._calls(count)
        devices.synchronize(self._device)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with no_garbage_collection():
            start = time.perf_counter_ns()
            for call in order:
                call()
            devices.synchronize(self._device)
            elapsed = time.perf_counter_ns() - start
        self._faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / count)
        return elapsed


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def flush_buffer(device: torch.device) -> torch.Tensor:
    """A buffer that is written to flush the caches (CUDA)."""
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
    return torch.empty(max(_FLUSH_BYTES, 2 * cache), dtype=torch.int8, device=device)


class CudaEvents:
    """A source of device times, with one event pair per call and cold caches.

    flush  a `flush_buffer`
    most   number of calls that may be prepared at once
    """

    number = 1

    def __init__(
        self,
        calls: Sequence[Call] | Calls,
        device: torch.device,
        flush: torch.Tensor,
        most: int = _BATCH,
    ) -> None:
        self._calls = _maker(calls)
        self._most = min(most, _BATCH)
        self._device = device
        self._flush = flush
        self._enqueue_ns = 0.0

    def warm_up(self, plan: SamplingPlan) -> None:
        """Run until the clocks have ramped up: batches of five agree within 2 %, or the time is up."""
        deadline = time.perf_counter() + plan.warm_up
        previous = 0.0
        while True:
            self._enqueue_ns, _ = host_and_wall(self._calls, self._device, min(5, self._most))
            middle = sorted(self.take(5))[2]
            if abs(middle - previous) <= 0.02 * previous or time.perf_counter() > deadline:
                return
            previous = middle

    def rewarm(self) -> None:
        """Does nothing, because the caches are flushed before each call."""

    def take(self, count: int) -> list[float]:
        samples: list[float] = []
        while len(samples) < count:
            samples += self._batch(self._calls(min(self._most, count - len(samples))))
        return samples

    def _batch(self, calls: Sequence[Call]) -> list[float]:
        with torch.cuda.device(self._device), no_garbage_collection():
            pairs = _event_pairs(len(calls))
            torch.cuda.synchronize(self._device)
            # The device sleeps until the host has enqueued everything, so that the host causes no gaps.
            torch.cuda._sleep(int(_SLEEP_CLOCK * len(calls) * (self._enqueue_ns + 20_000)))  # type: ignore[no-untyped-call]
            for (start, end), call in zip(pairs, calls, strict=True):
                self._flush.zero_()
                start.record()
                call()
                end.record()
            torch.cuda.synchronize(self._device)
            return [start.elapsed_time(end) * 1e6 for start, end in pairs]


class CudaGraph:
    """A source of device times without host overhead, by replaying a graph with one call per input set.

    The caches are warm, because a flush would be part of the graph. Raises RuntimeError if the calls cannot
    be captured (for example, a call that synchronises).
    """

    def __init__(self, calls: Sequence[Call], device: torch.device) -> None:
        self._device = device
        self.number = len(calls)
        with torch.cuda.device(device):
            side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                for call in calls:
                    call()
            torch.cuda.current_stream(device).wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._outputs = [call() for call in calls]

    def warm_up(self, plan: SamplingPlan) -> None:
        self.take(5)

    def rewarm(self) -> None:
        self.take(1)

    def take(self, count: int) -> list[float]:
        with torch.cuda.device(self._device):
            pairs = _event_pairs(count)
            for start, end in pairs:
                start.record()
                self._graph.replay()
                end.record()
            torch.cuda.synchronize(self._device)
            return [start.elapsed_time(end) * 1e6 / self.number for start, end in pairs]


def _event_pairs(count: int) -> list[tuple[Any, Any]]:
    event: Any = torch.cuda.Event
    return [(event(enable_timing=True), event(enable_timing=True)) for _ in range(count)]


def host_and_wall(calls: Sequence[Call] | Calls, device: torch.device, count: int) -> tuple[float, float]:
    """Nanoseconds per call: until it is enqueued, and until the device is idle after the last call."""
    order = _maker(calls)(count)
    devices.synchronize(device)
    with no_garbage_collection():
        start = time.perf_counter_ns()
        for call in order:
            call()
        enqueued = time.perf_counter_ns()
        devices.synchronize(device)
        done = time.perf_counter_ns()
    return (enqueued - start) / count, (done - start) / count


def latency(calls: Sequence[Call] | Calls, device: torch.device, count: int) -> float:
    """Median nanoseconds of a synchronised call: the latency for a user."""
    samples = sorted(host_and_wall([call], device, 1)[1] for call in _maker(calls)(count))
    return samples[len(samples) // 2]
