"""Measure cases: gate, time, memory; one `measurement` event per (case, variant, mode).

A measurement holds

| field | meaning |
| --- | --- |
| case, axes, variant, role, mode, dtype, device | what was measured |
| device_id, env_id | of the `machine` and `env` events that came before; made from their content |
| settings | threads, input_sets, cold (caches flushed before each call), graph (CUDA graph), tf32 |
| t_ns | n, block, min, p20, p50, p80, iqr, ci95 (of the median, or null), stop; `value` is the one to show: |
| | p50, or min when contended. Null when a gate failed |
| samples | at most 256 of them, nanoseconds a call |
| host_ns, latency_ns | CUDA: until a call is enqueued; until one that is waited for is done |
| first_call_s | the first call alone, compilation included |
| flops, bytes, tflops, gbps | the algorithmic work, and its rate |
| pct_ceiling, bound, ceiling_id | share of what this machine can attain, and what limits it; null without a |
| | calibration |
| mem | peak_bytes, method (see `readtrack.bench.memory`) |
| ok | passed, max_abs, max_rel, oracle, and the reason if it did not pass |
| quality | cpu_util, waiting, others, nivcsw, faults_per_call, ... (see `readtrack.bench.contention`) |
| skipped | the unmet need, or null |
| vs_naive, vs_strong | how many times as fast as the naive one, and as the fastest strong or compiled one |
| flags | contended, page-faults, host-bound, over-ceiling, review (10 times the strongest baseline) |
| record | whether this may stand as a result: passed, and no flag speaks against it |
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from readtrack.bench import ceilings as ceilings_module
from readtrack.bench import clocks, gates, memory
from readtrack.bench.case import Budget, Case, Mode, Variant
from readtrack.bench.ceilings import OVER_CEILING, Ceilings
from readtrack.bench.contention import Quality, Watch
from readtrack.bench.machine import environment, machine
from readtrack.bench.sampling import PLANS, Blocks, Plan, Source, collect
from readtrack.bench.stats import Timing, summarise
from readtrack.home import Home
from readtrack.text import one_line

Emit = Callable[..., None]

# Seconds of samples for all variants of all cases; the gates and the warm-up come on top.
_TOTAL: dict[Budget, float] = {"smoke": 0.1, "quick": 10.0, "full": 300.0}
_CALIBRATION_S = 2.0  # when there is none yet
_FAULTS = 100.0  # page faults a call
_REVIEW = 10.0  # times the strongest baseline
_KEPT = 256  # samples
_GRAPH_SETS = 16  # at most, so that one replay visits more memory than the cache holds


def run_case(
    case: Case,
    *,
    device: torch.device,
    dtype: torch.dtype,
    budget: Budget,
    seed: int,
    emit: Emit,
    check_cancelled: Callable[[], None],
) -> None:
    """`run_cases` with a single case."""
    run_cases(
        [case],
        device=device,
        dtype=dtype,
        budget=budget,
        seed=seed,
        emit=emit,
        check_cancelled=check_cancelled,
    )


def run_cases(
    cases: Sequence[Case],
    *,
    device: torch.device,
    dtype: torch.dtype,
    budget: Budget,
    seed: int,
    emit: Emit,
    check_cancelled: Callable[[], None],
) -> None:
    """Measure every variant of every case in every mode that the case has a cost for, and emit the results.

    A variant whose `needs` is not empty is emitted as skipped; one that fails its gate is emitted with the
    reason and without a time. The budget's time is divided over what there is to measure.

    Raises ValueError when a case has neither an oracle nor a naive variant.
    """
    if not cases:
        return
    home = Home()
    with _strict_precision(device):
        ceilings = _ceilings(home, device, dtype, budget, emit, check_cancelled)
        session = _Session(
            home=home,
            device=device,
            dtype=dtype,
            budget=budget,
            seed=seed,
            plan=_share(PLANS[budget], _TOTAL[budget], cases),
            ceilings=ceilings,
            emit=emit,
            check_cancelled=check_cancelled,
        )
        for case in cases:
            for mode in case.cost:
                with _locked(home, device, check_cancelled) as waited:
                    session.measure(case, mode, waited)


def _share(plan: Plan, total: float, cases: Sequence[Case]) -> Plan:
    lanes = sum(len(case.cost) * sum(not v.needs for v in case.variants) for case in cases)
    return replace(plan, seconds=min(plan.seconds, total / max(lanes, 1)))


@contextlib.contextmanager
def _strict_precision(device: torch.device) -> Iterator[None]:
    """float32 means float32: TF32 has 10 bits, and would fail its gate."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextlib.contextmanager
def _locked(home: Home, device: torch.device, check_cancelled: Callable[[], None]) -> Iterator[float]:
    """One measurement at a time on a device, across processes. Yields the seconds that it took to get it."""
    from filelock import Timeout

    lock = home.lock(ceilings_module.lock_name(device))
    start = time.monotonic()
    while True:
        check_cancelled()
        try:
            lock.acquire(timeout=0.2, poll_interval=0.02)
            break
        except Timeout:
            continue
    try:
        yield time.monotonic() - start
    finally:
        lock.release()


def _ceilings(
    home: Home,
    device: torch.device,
    dtype: torch.dtype,
    budget: Budget,
    emit: Emit,
    check_cancelled: Callable[[], None],
) -> Ceilings | None:
    """The kept calibration; where it lacks this dtype, two seconds are spent on what this run needs."""
    name = str(dtype).removeprefix("torch.")
    machine_name = machine(device)["device_name"]
    threads = torch.get_num_threads() if device.type == "cpu" else None
    kept = ceilings_module.load(
        home, device_name=machine_name, torch_version=str(torch.__version__), threads=threads
    )
    if budget == "smoke" or (kept is not None and name in kept.flops):
        return kept
    with _locked(home, device, check_cancelled):
        new = ceilings_module.measure(
            device, dtypes=[name], seconds=_CALIBRATION_S, check_cancelled=check_cancelled
        )
    found = ceilings_module.merged(kept, new)
    if not new.contended:
        ceilings_module.save(home, found)
    emit("log", text="Ceilings were measured in 2 s; `readtrack calibrate` measures them with more care.")
    return found


@dataclass(slots=True)
class _Cell:
    """One variant of a case in one mode, on its way to a measurement."""

    variant: Variant
    check: gates.Check | None = None
    calls: list[clocks.Call] = field(default_factory=list)
    timing: Timing | None = None
    samples: list[float] = field(default_factory=list)
    memory: dict[str, Any] | None = None
    host_ns: float | None = None
    latency_ns: float | None = None
    graph: bool = False
    faults_per_call: float | None = None
    flags: list[str] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.check is not None and self.check.passed

    @property
    def value(self) -> float | None:
        """The time to show and to compare: under load only the minimum is repeatable."""
        if self.timing is None or not self.alive:
            return None
        return self.timing.min if "contended" in self.flags else self.timing.p50

    def fail(self, error: Exception) -> None:
        text = "out of memory" if isinstance(error, torch.OutOfMemoryError) else None
        self.check = gates.Check(False, reason=text or one_line(f"{type(error).__name__}: {error}")[:300])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """What is the same for all cells of a run."""

    home: Home
    device: torch.device
    dtype: torch.dtype
    budget: Budget
    seed: int
    plan: Plan
    ceilings: Ceilings | None
    emit: Emit
    check_cancelled: Callable[[], None]
    machine: dict[str, Any] = field(init=False)
    env: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "machine", machine(self.device))
        object.__setattr__(self, "env", environment(self.device))
        self.emit("machine", **self.machine)
        self.emit("env", **self.env)

    def measure(self, case: Case, mode: Mode, lock_wait_s: float) -> None:
        cells = [_Cell(variant) for variant in case.variants]
        gate = gates.Gate(case, mode, device=self.device, dtype=self.dtype, seed=self.seed)
        for cell in cells:
            if not cell.variant.needs:
                self.check_cancelled()
                cell.check = gate.before(cell.variant)
        running = [cell for cell in cells if cell.alive]
        threads = torch.get_num_threads()
        quality: Quality | None = None
        if running:
            self._bind(gate, running)
            with gates.gradients_on(mode):
                quality, threads = self._time(running)
            self._check_again(gate, running, mode)
        gate.forget()
        for cell in cells:
            self.emit("measurement", **self._row(case, mode, cell, cells, quality, threads, lock_wait_s))

    def _bind(self, gate: gates.Gate, running: list[_Cell]) -> None:
        shared = None if gate.mode == "step" else gate.timed_inputs()
        for cell in running:
            sets = shared or gate.timed_inputs()
            cell.calls = [gates.bind(cell.variant.call, gate.mode, *inputs) for inputs in sets]

    def _time(self, running: list[_Cell]) -> tuple[Quality | None, int]:
        """Take the samples. A crowded CPU is tried once more with one thread, which waits for no other."""
        gc.collect()
        threads = torch.get_num_threads()
        if self.device.type != "cpu":
            self._sample(running)
            for cell in running:
                self._look_at_the_host(cell)
            return None, threads
        quality = self._sample_watched(running, threads)
        if not quality.contended:
            return quality, threads
        if threads > 1 and self.budget != "smoke":
            torch.set_num_threads(1)
            try:
                quality = self._sample_watched(running, 1)
            finally:
                torch.set_num_threads(threads)
            threads = 1
        for cell in running:
            cell.flags.append("contended")
        return quality, threads

    def _sample_watched(self, running: list[_Cell], threads: int) -> Quality:
        watch = Watch(threads)
        self._sample(running)
        return watch.read()

    def _sample(self, running: list[_Cell]) -> None:
        hosts: list[clocks.HostClock] = []
        sources: list[Source] = []
        for cell in running:
            if self.device.type == "cuda":
                sources.append(clocks.CudaEvents(cell.calls, self.device))
            else:
                hosts.append(clocks.HostClock(cell.calls, self.device))
                sources.append(Blocks(hosts[-1]))
        lanes = collect(sources, self.plan, time.perf_counter_ns, self.check_cancelled)
        for cell, lane in zip(running, lanes, strict=True):
            if lane.error is not None:
                cell.fail(lane.error)
            elif lane.stop is not None:
                cell.samples = lane.samples
                cell.timing = summarise(lane.samples, block=lane.source.block, stop=lane.stop)
        for cell, host in zip(running, hosts, strict=False):
            cell.faults_per_call = host.faults / max(host.calls, 1)

    def _look_at_the_host(self, cell: _Cell) -> None:
        """CUDA: what the host needs; where it is the slower one, the device's time comes from a graph."""
        if self.device.type != "cuda" or cell.timing is None or not cell.alive:
            return
        cell.host_ns, together = clocks.host_and_wall(cell.calls, self.device, 20)
        cell.latency_ns = clocks.latency(cell.calls, self.device, 20)
        if together > 1.5 * max(cell.host_ns, cell.timing.p50) + 10_000:
            # The device goes on after the last event: work on a stream that the events do not see.
            cell.flags.append("review")
        if cell.host_ns <= cell.timing.p50:
            return
        cell.flags.append("host-bound")
        try:
            graph = clocks.CudaGraph(cell.calls, self.device)
        except RuntimeError:
            torch.cuda.synchronize(self.device)
            return  # it cannot be captured: the events' time stands, with its flag
        [lane] = collect([graph], self.plan, time.perf_counter_ns, self.check_cancelled)
        if lane.error is None and lane.stop is not None:
            cell.samples, cell.graph = lane.samples, True
            cell.timing = summarise(lane.samples, block=graph.block, stop=lane.stop)

    def _check_again(self, gate: gates.Gate, running: list[_Cell], mode: Mode) -> None:
        for cell in running:
            self.check_cancelled()
            if not cell.alive:
                continue
            before, after = cell.check, gate.after(cell.variant)
            assert before is not None
            if after.passed:
                after = replace(
                    after,
                    errors=gates.worst(before.errors, after.errors),
                    first_call_s=before.first_call_s,
                )
            cell.check = after
            if after.passed and self.budget != "smoke":
                with gates.gradients_on(mode):
                    try:
                        cell.memory = memory.peak(cell.calls[0], self.device)
                    except Exception as error:  # the plugin's code
                        cell.fail(error)

    def _row(
        self,
        case: Case,
        mode: Mode,
        cell: _Cell,
        cells: list[_Cell],
        quality: Quality | None,
        threads: int,
        lock_wait_s: float,
    ) -> dict[str, Any]:
        cost, value = case.cost[mode], cell.value
        cold = self.device.type == "cuda" and not cell.graph
        timing = cell.timing if value is not None else None
        share = self._share_of_ceiling(case, mode, value, cold) if value else {}
        versus = _versus(cell, cells)
        flags = list(cell.flags)
        if value is not None:
            flags += _flags(cell, share.get("pct_ceiling"), versus["vs_strong"])
        stride = -(-len(cell.samples) // _KEPT) or 1
        return {
            "case": case.name,
            "axes": dict(case.axes),
            "variant": cell.variant.name,
            "role": cell.variant.role,
            "mode": mode,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "device_id": self.machine["id"],
            "env_id": self.env["id"],
            "settings": {
                "threads": threads,
                "input_sets": max(len(cell.calls), 1),
                "cold": cold,
                "graph": cell.graph,
                "tf32": False,
            },
            "t_ns": {**timing.to_json(), "value": round(value, 1)} if timing and value else None,
            "samples": [round(sample) for sample in cell.samples[::stride]] if timing else [],
            "host_ns": cell.host_ns,
            "latency_ns": cell.latency_ns,
            "first_call_s": cell.check.first_call_s if cell.check else None,
            "flops": cost.flops,
            "bytes": cost.bytes,
            "tflops": cost.flops / value / 1e3 if value else None,
            "gbps": cost.bytes / value if value else None,
            "pct_ceiling": None,
            "bound": None,
            "ceiling_id": None,
            **share,
            "mem": cell.memory,
            "ok": cell.check.to_json() if cell.check else None,
            "quality": {
                **(quality.to_json() if quality else {}),
                "faults_per_call": cell.faults_per_call,
                "lock_wait_s": round(lock_wait_s, 3),
            },
            "skipped": cell.variant.needs or None,
            **versus,
            "flags": flags,
            "record": value is not None and not {"contended", "over-ceiling", "review"} & set(flags),
        }

    def _share_of_ceiling(self, case: Case, mode: Mode, value: float, cold: bool) -> dict[str, Any]:
        if self.ceilings is None:
            return {}
        cost, name = case.cost[mode], str(self.dtype).removeprefix("torch.")
        if name not in self.ceilings.flops:
            return {}
        least, decides = self.ceilings.attainable_ns(name, cost.flops, cost.bytes, cold=cold)
        return {
            "pct_ceiling": 100 * least / value,
            "bound": self.ceilings.bound(decides, value),
            "ceiling_id": self.ceilings.id,
        }


def _versus(cell: _Cell, cells: list[_Cell]) -> dict[str, float | None]:
    def fastest(*roles: str) -> float | None:
        values = [other.value for other in cells if other.variant.role in roles]
        return min((value for value in values if value is not None), default=None)

    value, naive, strong = cell.value, fastest("naive"), fastest("strong", "compiled")
    return {
        "vs_naive": naive / value if naive and value else None,
        "vs_strong": strong / value if strong and value else None,
    }


def _flags(cell: _Cell, pct_ceiling: float | None, vs_strong: float | None) -> list[str]:
    flags = []
    if cell.faults_per_call is not None and cell.faults_per_call > _FAULTS:
        flags.append("page-faults")
    if pct_ceiling is not None and pct_ceiling > OVER_CEILING:
        flags.append("over-ceiling")
    if cell.variant.role in ("paper", "vendor") and vs_strong is not None and vs_strong > _REVIEW:
        flags.append("review")
    return flags
