"""Tests the host's clock, and CUDA's with a simulated device that keeps a log."""

import contextlib
import gc
import mmap
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from readtrack.bench import timers
from readtrack.bench.sampling import PLANS

CPU = torch.device("cpu")


def test_a_block_rotates_over_the_input_sets() -> None:
    seen: list[str] = []
    clock = timers.HostClock([lambda: seen.append("a"), lambda: seen.append("b")], CPU)
    assert clock(5) > 0
    assert seen == ["a", "b", "a", "b", "a"]


def test_garbage_is_not_collected_while_the_clock_runs() -> None:
    states: list[bool] = []
    timers.HostClock([lambda: states.append(gc.isenabled())], CPU)(2)
    assert states == [False, False]
    assert gc.isenabled()


def test_page_faults_are_counted() -> None:
    """64 MiB of untouched memory cause one fault per page of 4 KiB up to 2 MiB."""
    clock = timers.HostClock([lambda: mmap.mmap(-1, 64 << 20).write(b"x" * (64 << 20))], CPU)
    for _ in range(3):
        clock(1)
    quiet = timers.HostClock([lambda: None], CPU)
    quiet(1000)
    assert clock.faults_per_call >= 32 > quiet.faults_per_call


class FakeCuda:
    """A device that takes 30 µs per call, on a host that takes no time. `log` records the requests."""

    def __init__(self, *, captures: bool = True) -> None:
        self.log: list[str] = []
        self.now = 0.0
        self.captures = captures
        fake = self

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                fake.log.append("event")
                self.at = fake.now

            def elapsed_time(self, end: Any) -> float:
                assert fake.log[-1] == "synchronize"
                return (end.at - self.at) / 1e6

        class CUDAGraph:
            def replay(self) -> None:
                fake.log.append("replay")
                fake.now += 2 * 30_000

        self.Event = Event
        self.CUDAGraph = CUDAGraph
        self.device = lambda device: contextlib.nullcontext()
        self.stream = lambda stream: contextlib.nullcontext()
        self.Stream = self.current_stream = lambda device: SimpleNamespace(wait_stream=lambda other: None)

    def synchronize(self, device: Any = None) -> None:
        self.log.append("synchronize")

    def _sleep(self, cycles: int) -> None:
        self.log.append("sleep")
        self.now += cycles

    def get_device_properties(self, device: Any) -> Any:
        return SimpleNamespace(L2_cache_size=50 << 20)

    @contextlib.contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        if not self.captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.log.append("capture")
        yield

    def flush(self) -> None:
        self.log.append("flush")
        self.now += 100_000

    def call(self) -> None:
        self.log.append("call")
        self.now += 30_000


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCuda]:
    def make(**options: Any) -> FakeCuda:
        cuda = FakeCuda(**options)

        def empty(size: int, **_: Any) -> Any:
            cuda.flush_bytes = size
            return SimpleNamespace(zero_=cuda.flush)

        monkeypatch.setattr(timers, "torch", SimpleNamespace(cuda=cuda, empty=empty, int8=torch.int8))
        monkeypatch.setattr(timers.devices, "synchronize", cuda.synchronize)
        return cuda

    return make


def test_cuda_flushes_before_each_call_and_waits_once(fake: Callable[..., FakeCuda]) -> None:
    cuda = fake()
    device = torch.device("cuda")
    source = timers.CudaEvents([cuda.call], device, timers.flush_buffer(device))
    cuda.log.clear()
    assert source.take(3) == pytest.approx([30_000] * 3)
    assert cuda.log == ["synchronize", "sleep", *["flush", "event", "call", "event"] * 3, "synchronize"]
    assert cuda.flush_bytes >= 100 << 20


def test_cuda_takes_many_samples_in_batches_that_the_queue_can_hold(fake: Callable[..., FakeCuda]) -> None:
    cuda = fake()
    device = torch.device("cuda")
    source = timers.CudaEvents([cuda.call], device, timers.flush_buffer(device))
    source.warm_up(PLANS["quick"])
    cuda.log.clear()
    assert len(source.take(150)) == 150
    assert cuda.log.count("sleep") == 3


def test_a_cuda_graph_holds_every_input_set_once(fake: Callable[..., FakeCuda]) -> None:
    cuda = fake()
    source = timers.CudaGraph([cuda.call, cuda.call], torch.device("cuda"))
    assert cuda.log == ["call", "call", "capture", "call", "call"]
    assert source.number == 2
    assert source.take(4) == pytest.approx([30_000] * 4)


def test_a_failed_capture_raises(fake: Callable[..., FakeCuda]) -> None:
    cuda = fake(captures=False)
    with pytest.raises(RuntimeError, match="capturing"):
        timers.CudaGraph([cuda.call], torch.device("cuda"))


def test_host_time_is_part_of_the_wall_time() -> None:
    host, wall = timers.host_and_wall([lambda: sum(range(1000))], CPU, 10)
    assert 1_000 < host <= wall
    assert timers.latency([lambda: sum(range(1000))], CPU, 11) > 1_000
