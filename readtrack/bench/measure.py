"""Measure the correctness, time and memory of cases: one `measurement` event per (case, variant, mode).

`readtrack.bench.measurement` documents the event. `machine`, `env` and `ceilings` are emitted before the
events that refer to them; their ids are derived from their content.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from readtrack.bench import ceilings, compiled, correctness, memory, timers
from readtrack.bench.case import Budget, Case, Mode
from readtrack.bench.ceilings import Ceilings
from readtrack.bench.contention import ContentionMonitor, CpuContention, probe
from readtrack.bench.machine import environment, machine
from readtrack.bench.measurement import MeasurementContext, VariantResult, measurement_event
from readtrack.bench.sampling import (
    PLANS,
    Blocks,
    MadeBlocks,
    SampleSeries,
    SampleSource,
    SamplingPlan,
    collect,
)
from readtrack.bench.stats import summarise
from readtrack.bench.timed import TimedCalls
from readtrack.home import Home

# Seconds of samples for all variants of all cases in one round, excluding checks and warm-up.
_TOTAL: dict[Budget, float] = {"smoke": 0.1, "quick": 2.0, "full": 60.0}
_CALIBRATION_S = 2.0  # used if there is no calibration yet
_UNTIL_QUIET = 1.0  # seconds to wait for the end of a burst of other work
_MOST_BURSTS = 3  # per run


def run_cases(
    cases: Sequence[Case],
    *,
    device: torch.device,
    dtype: torch.dtype,
    budget: Budget,
    seed: int,
    emit: Callable[..., None],
    check_cancelled: Callable[[], None],
) -> None:
    """Measure every variant of every case in each of the case's modes, and emit the results.

    Measurements are made in several rounds (`SamplingPlan.rounds`). Each round emits the results so far. A
    variant whose `needs` is not empty is emitted as skipped; one that fails a check is emitted with the
    reason and without a time. The budget's time is divided among all measurements. A CPU is measured with the
    current number of threads, or with one thread if other programs keep the cores busy.

    Raises ValueError if a case has neither an oracle nor a naive variant.
    """
    if not cases:
        return
    session = _Session(device, dtype, budget, seed, emit, check_cancelled)
    count = sum(len(case.cost) * sum(not variant.needs for variant in case.variants) for case in cases)
    plan = PLANS[budget]
    plan = replace(plan, seconds=min(plan.seconds, _TOTAL[budget] / max(count, 1)))
    threads = torch.get_num_threads()
    try:
        with _strict_precision(device), _compiler(cases):
            jobs = [session.job(case, mode) for case in cases for mode in case.cost]
            for number in range(1, plan.rounds + 1):
                for job in jobs:
                    with session.locked() as waited:
                        job.lock_wait_s += waited
                        session.measure(job, number, plan if number == 1 else plan.again())
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _strict_precision(device: torch.device) -> Iterator[None]:
    """Disable TF32, whose 10-bit mantissa would fail the checks of float32."""
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


def _compiler(cases: Sequence[Case]) -> contextlib.AbstractContextManager[None]:
    needed = any(variant.role == compiled.ROLE for case in cases for variant in case.variants)
    return compiled.compiler() if needed else contextlib.nullcontext()


@dataclass(slots=True)
class _Job:
    """One case in one mode; `threads` is the number of threads for its samples."""

    case: Case
    mode: Mode
    results: list[VariantResult]
    checker: correctness.CorrectnessCheck
    threads: int = 0
    input_sets: int | None = 0
    touched: int = 0
    quality: CpuContention | None = None
    lock_wait_s: float = 0.0

    def drop_samples(self) -> None:
        for result in self.results:
            result.rounds.clear()
            result.timing = None


class _Session:
    """State shared by all cases of a run.

    threads_delayed  whether the CPU is shared. If so, one thread is used from then on, because it never waits
                     for others, and no measurement counts as a record
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        budget: Budget,
        seed: int,
        emit: Callable[..., None],
        check_cancelled: Callable[[], None],
    ) -> None:
        self.device, self.dtype, self.budget, self.seed = device, dtype, budget, seed
        self.emit, self.check_cancelled = emit, check_cancelled
        self.home = Home()
        self.threads_delayed = self._looked = False
        self._bursts = 0
        self._ceilings: dict[int, Ceilings | None] = {}
        self._machine, self._env = machine(device), environment(device)
        emit("machine", **self._machine)
        emit("env", **self._env)

    @property
    def _dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @contextlib.contextmanager
    def locked(self) -> Iterator[float]:
        """Hold the lock that allows one measurement at a time on a device. Yield the seconds waited."""
        from filelock import Timeout

        lock = self.home.lock(ceilings.lock_name(self.device))
        start = time.monotonic()
        while not lock.is_locked:
            self.check_cancelled()
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0.2, poll_interval=0.02)
        try:
            yield time.monotonic() - start
        finally:
            lock.release()

    def job(self, case: Case, mode: Mode) -> _Job:
        checker = correctness.CorrectnessCheck(
            case, mode, device=self.device, dtype=self.dtype, seed=self.seed
        )
        variants = [v for v in case.variants if v.role != compiled.ROLE or mode in compiled.MODES]
        return _Job(case, mode, [VariantResult(variant) for variant in variants], checker)

    def measure(self, job: _Job, number: int, plan: SamplingPlan) -> None:
        """Sample all variants and emit the results so far.

        Variants are checked before the first round and after the last. Each round has its own inputs,
        possibly in other memory.
        """
        self._look_around()
        if number == 1:
            for result in job.results:
                if not result.variant.needs:
                    self.check_cancelled()
                    _check_first(job.checker, result)
            if job.case.cost[job.mode] is not None and any(result.alive for result in job.results):
                job.touched = job.checker.touched_bytes()
        running = [result for result in job.results if result.alive]
        to_sample = [result for result in running if not result.too_long_for(plan)]
        if to_sample:
            bound = self._bind(job.checker, to_sample)
            job.input_sets = bound[0].input_sets
            with correctness.gradients_on(job.mode):
                self._time(job, to_sample, bound, plan)
            del bound
        if number == plan.rounds and running:
            self._check_again(job.checker, running, self._bind(job.checker, running))
        job.checker.forget()
        where = MeasurementContext(
            case=job.case,
            mode=job.mode,
            dtype=self._dtype_name,
            device=str(self.device),
            device_id=self._machine["id"],
            env_id=self._env["id"],
            round_number=number,
            rounds=plan.rounds,
            threads=torch.get_num_threads(),
            input_sets=job.input_sets,
            touched=job.touched,
            cold=self.device.type == "cuda",
            ceilings=self._ceilings_now(),
            quality=job.quality,
            lock_wait_s=job.lock_wait_s,
        )
        for result in job.results:
            self.emit("measurement", **measurement_event(result, job.results, where))

    def _look_around(self) -> None:
        """Check once for other load, which makes several threads up to a hundred times slower."""
        threads = torch.get_num_threads()
        if not self._looked and self.device.type == "cpu" and threads > 1 and probe(threads):
            self._give_up_threads()
        self._looked = True

    def _give_up_threads(self) -> None:
        self.threads_delayed = True
        torch.set_num_threads(1)

    @staticmethod
    def _bind(checker: correctness.CorrectnessCheck, running: Sequence[VariantResult]) -> list[TimedCalls]:
        """The calls of each variant. A step changes its inputs, so it has its own sets."""
        shared = None if checker.mode == "step" or checker.case.fresh else checker.timed_inputs()
        return [TimedCalls(checker, result.variant, shared) for result in running]

    def _time(
        self, job: _Job, running: Sequence[VariantResult], bound: Sequence[TimedCalls], plan: SamplingPlan
    ) -> None:
        if self.device.type == "cuda":
            flush = timers.flush_buffer(self.device)
            sources = [timers.CudaEvents(calls, self.device, flush, calls.most) for calls in bound]
            self._sample(running, sources, plan)
            for result, calls in zip(running, bound, strict=True):
                if result.alive:
                    self._look_at_the_host(result, calls, plan)
            return
        kept = [len(result.rounds) for result in running]
        quality = self._sample_on_host(job, running, bound, plan)
        if self.device.type != "cpu":
            return
        if quality.contended and torch.get_num_threads() > 1:
            # After a burst of other work, repeat this round. After two bursts in a row, or many in a run, use
            # one thread.
            if self._bursts < _MOST_BURSTS:
                self._bursts += 1
                for result, rounds in zip(running, kept, strict=True):
                    del result.rounds[rounds:]
                time.sleep(_UNTIL_QUIET)
                quality = self._sample_on_host(job, running, bound, plan)
            if quality.contended:
                self._give_up_threads()
                quality = self._sample_on_host(job, running, bound, plan)
        if quality.contended or self.threads_delayed:
            for result in running:
                result.flag("contended")
        if job.quality is None or (quality.contended, quality.others) > (
            job.quality.contended,
            job.quality.others,
        ):
            job.quality = quality

    def _sample_on_host(
        self, job: _Job, running: Sequence[VariantResult], bound: Sequence[TimedCalls], plan: SamplingPlan
    ) -> CpuContention:
        hosts = [timers.HostClock(calls, self.device) for calls in bound]
        threads = torch.get_num_threads()
        if job.threads != threads:
            job.drop_samples()
            job.threads = threads
        watch = ContentionMonitor(threads)
        sources: list[SampleSource] = []
        for result, calls, host in zip(running, bound, hosts, strict=True):
            seconds = result.check.call_s if result.check else 0.0
            sources.append(MadeBlocks(host, seconds, calls.most) if calls.once else Blocks(host, seconds))
        self._sample(running, sources, plan)
        quality = watch.read()
        for result, host in zip(running, hosts, strict=True):
            result.faults_per_call = host.faults_per_call
        return quality

    def _sample(
        self, running: Sequence[VariantResult], sources: Sequence[SampleSource], plan: SamplingPlan
    ) -> None:
        all_series = collect(sources, plan, time.perf_counter_ns, self.check_cancelled)
        for result, series in zip(running, all_series, strict=True):
            if series.error is not None:
                result.check = correctness.failed(series.error)
            else:
                _keep(result, series)

    def _look_at_the_host(self, result: VariantResult, calls: TimedCalls, plan: SamplingPlan) -> None:
        """CUDA: measure the host's time; if it exceeds the device's, get the device's time from a graph."""
        assert result.timing is not None
        count = min(20, calls.most)
        result.host_ns, together = timers.host_and_wall(calls, self.device, count)
        result.latency_ns = timers.latency(calls, self.device, count)
        if together > 1.5 * max(result.host_ns, result.timing.p50) + 10_000:
            # The device is busy after the last event: work on a stream that the events do not cover.
            result.flag("review")
        if result.host_ns <= result.timing.p50 and not result.graph:
            return
        result.flag("host-bound")
        if calls.once:
            return  # a graph would reuse the same inputs
        try:
            graph = timers.CudaGraph(calls(calls.input_sets or 1), self.device)
        except RuntimeError:
            torch.cuda.synchronize(self.device)
            return  # cannot be captured: keep the events' time, with its flag
        [series] = collect([graph], plan, time.perf_counter_ns, self.check_cancelled)
        if series.error is None:
            # Replace the events' samples from this round, or from all rounds if this is the first graph.
            result.rounds = result.rounds[:-1] if result.graph else []
            result.graph = True
            _keep(result, series)

    def _check_again(
        self,
        checker: correctness.CorrectnessCheck,
        running: Sequence[VariantResult],
        bound: Sequence[TimedCalls],
    ) -> None:
        for result, calls in zip(running, bound, strict=True):
            self.check_cancelled()
            before = result.check
            if before is None or not before.passed:
                continue
            result.check = checker.after(result.variant, before)
            if result.alive and self.budget != "smoke":
                try:
                    with correctness.gradients_on(checker.mode):
                        made = iter(calls(memory.CALLS))
                        result.memory = memory.peak(partial(_next, made), self.device, seconds=before.call_s)
                except Exception as error:  # from the plugin's code
                    result.check = correctness.failed(error)

    def _ceilings_now(self) -> Ceilings | None:
        """The ceilings for the current number of threads."""
        threads = torch.get_num_threads()
        if threads not in self._ceilings:
            found = self._ceilings[threads] = self._find_ceilings(threads)
            if found is not None:
                self.emit("ceilings", id=found.id, **asdict(found))
        return self._ceilings[threads]

    def _find_ceilings(self, threads: int) -> Ceilings | None:
        """The saved calibration, or if it lacks this dtype, one of two seconds for what this run needs."""
        kept = ceilings.load(
            self.home,
            device_name=self._machine["device_name"],
            torch_version=str(torch.__version__),
            threads=threads if self.device.type == "cpu" else None,
        )
        if self.budget == "smoke" or (kept is not None and self._dtype_name in kept.flops):
            return kept
        self.emit("log", text="Measuring ceilings for 2 s; `readtrack calibrate` is more accurate.")
        new = ceilings.measure(
            self.device,
            dtypes=[self._dtype_name],
            seconds=_CALIBRATION_S,
            check_cancelled=self.check_cancelled,
        )
        if not new.contended:
            new = ceilings.merged(kept, new)
            ceilings.save(self.home, new)
        # The best of many short samples is reliable under load for one thread, but not for several.
        return None if new.contended and threads > 1 else new


def _check_first(checker: correctness.CorrectnessCheck, result: VariantResult) -> None:
    if result.variant.role != compiled.ROLE:
        result.check = checker.before(result.variant)
        return
    known = compiled.graphs()
    result.check = checker.before(result.variant)
    if result.check.raised:
        result.skip(f"does not compile: {result.check.reason}")
    elif compiled.graphs() == known:
        result.skip("does not compile: no part of it becomes a graph")


def _next(made: Iterator[timers.Call]) -> Any:
    return next(made)()


def _keep(result: VariantResult, series: SampleSeries) -> None:
    assert series.stop is not None
    result.rounds.append(series.samples)
    result.timing = summarise(result.rounds, number=series.source.number, stop=series.stop)
