"""The run itself: the plugin's experiment and benchmark, the heartbeat, stopping, the end."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import readtrack
from readtrack.bench.judge import Speedup
from readtrack.claims import no_such_break
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins.find import search_path
from readtrack.runs import checkpoints, log
from readtrack.runs.events import EventWriter, Outcome
from readtrack.runs.job import DETACHED, Job
from readtrack.runs.outcome import StopReason, stopped
from readtrack.runs.processes import kill_family, kill_leftover_processes
from readtrack.runs.run import Run, RunCancelled
from readtrack.runs.store import load as load_run
from readtrack.runs.store import write_result
from readtrack.runs.worker.failure import memory_kind, message, short_traceback
from readtrack.text import format_bytes, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pluggy
    import torch

    from readtrack.bench.case import Case
    from readtrack.claims import Claim


_HEARTBEAT = 1.0  # seconds


_TRIM = 0.1  # seconds between two checks of the log's size: a child may print a gigabyte per second


_GRACE_ASKED = 2.0  # seconds between asking a run to stop and interrupting it


_GRACE_INTERRUPTED = 3.0  # seconds from then until it is killed


_GRACE_OWNER = 10.0  # seconds after the deadline in which the starter may enforce it


_LAST_RESORT = 30.0  # seconds after the deadline until even code that holds the interpreter lock is killed


class Worker:
    def __init__(self, folder: Path, commands: int, sentinel: int) -> None:
        import psutil

        self._folder = folder
        self._commands = commands
        self._sentinel = sentinel
        self._process = psutil.Process()
        self._started = time.monotonic()
        self._run: Run | None = None
        self._device: torch.device | None = None
        self._stop_reason: StopReason | None = None
        self._stop_asked = threading.Event()
        self._ending = threading.Event()
        self._rss = 0
        self._cpu = (0.0, self._started)  # seconds of processor time, and the time of measurement
        self._job: Job | None = None
        self._job_problem = ""
        try:
            self._job = Job.read(folder)
        except (OSError, ValueError, TypeError) as error:
            self._job_problem = f"{folder / 'job.json'} is not a job: {one_line(str(error))}"
        self._events = EventWriter(folder, elapsed=self._job.spent if self._job else 0.0)

    def work(self) -> NoReturn:
        self._events.emit(
            "hello",
            run_id=self._folder.name,
            paper=self._job.paper if self._job else "",
            pid=os.getpid(),
            process_start=self._process.create_time(),
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            readtrack=readtrack.__version__,
            python=platform.python_version(),
            host=socket.gethostname(),
            spent=self._job.spent if self._job else 0.0,
        )
        if self._job and self._job.timeout is not None:
            faulthandler.dump_traceback_later(self._job.timeout + _LAST_RESORT, exit=True)
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        threading.Thread(target=self._heartbeat_loop, name="heartbeat", daemon=True).start()
        self._finish(*self._run_guarded())

    def _run_guarded(self) -> tuple[Outcome, str]:
        try:
            try:
                self._run_job()
                return "completed", ""
            finally:
                # From here on a late SIGINT would only disturb the report.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException as error:
            return self._classify_exception(error)

    # The job

    def _run_job(self) -> None:
        self._events.emit("phase", name="import")
        if self._job is None:
            raise ReadtrackError(self._job_problem)
        job = self._job
        from readtrack import devices

        device = devices.resolve(job.device)
        import torch

        from readtrack.plugins.load import claims, load
        from readtrack.runs.worker import torch_settings

        bench_dtype = devices.resolve_dtype(job.dtype, device)
        dtype = torch.float32 if job.dtype == "auto" else bench_dtype
        if job.dtype == "auto":
            bench_dtype = devices.resolve_dtype(torch_settings.calibrated_dtype(device), device)
        torch_settings.set_threads(
            torch_settings.benchmark_threads(job.budget) if job.only == "benchmark" else 1
        )
        self._device = device
        names = {"dtype": str(dtype), "benchmark_dtype": str(bench_dtype)}
        plain_names = {key: name.removeprefix("torch.") for key, name in names.items()}
        self._events.emit("environment", **devices.describe(device), **plain_names)
        manager = load(job.paper, Home())
        self._check_stopped()
        run = Run(
            folder=self._folder,
            events=self._events,
            device=device,
            dtype=dtype,
            seed=job.seed,
            budget=job.budget,
            settings=job.settings,
            null=job.null,
            broken=job.broken,
            times=job.times,
            kept=None if job.practice else checkpoints.folder(Home(), job.resumes or job.run_id),
            every=job.checkpoint,
        )
        self._run = run
        # Earlier requests to stop did not reach the run.
        run.cancelled = run.cancelled or self._stop_reason is not None
        judged = claims(job.paper)
        _check_break(job, judged)
        if job.practice:
            self._practise(job, manager, run, judged, bench_dtype)
            return
        if job.only != "benchmark":
            run.stated(judged)
            self._experiment(manager, run)
        elif job.settings:
            self._warn("--set is for the experiment: the benchmark has no options.")
        measurements = None
        if job.only != "experiment":
            from readtrack.bench.null import null_case

            compiled = job.compile or run.budget == "full"
            change = partial(null_case, bounds=_speedups(judged)) if job.null else None
            measurements = self._benchmark(manager, run, bench_dtype, compiled=compiled, change=change)
        run.judge_timed(judged, measurements)
        run.checkpoints.discard()

    def _practise(
        self,
        job: Job,
        manager: pluggy.PluginManager,
        run: Run,
        judged: Sequence[Claim],
        bench_dtype: torch.dtype,
    ) -> None:
        """Judge the reader's functions, or run the benchmark and claims with them in place of the paper's."""
        from readtrack.practice import rivals
        from readtrack.runs.worker import practising

        opened = practising.session(job, self._folder)
        if job.only == "exercises":
            self._events.emit("phase", name="exercises")
            practising.judge_all(opened, job, self._events, self._check_stopped)
            return
        places = opened.take_place(job.practice)
        measurements = None
        if job.only != "experiment":
            change = partial(rivals.with_yours, places=places)
            found = self._benchmark(manager, run, bench_dtype, compiled=False, change=change)
            measurements = rivals.judged(found)
        places.switch(True)
        if job.only != "benchmark":
            run.stated(judged)
            self._experiment(manager, run)
        run.judge_timed(judged, measurements)

    def _experiment(self, manager: pluggy.PluginManager, run: Run) -> None:
        from readtrack.runs.worker import torch_settings

        torch_settings.seed(run.seed)
        run.phase("setup")
        manager.hook.experiment(run=run)
        for name, known in run.unused_settings().items():
            there_is = f"it has {', '.join(known)}" if known else "it has none"
            self._warn(f"--set {name}: the experiment has no such option; {there_is}.")
        run.check_cancelled()

    def _benchmark(
        self,
        manager: pluggy.PluginManager,
        run: Run,
        dtype: torch.dtype,
        *,
        compiled: bool,
        change: Callable[[Case], Case] | None = None,
    ) -> list[dict[str, Any]]:
        """Measure the plugin's cases, changed by `change`, and return each variant's last measurement."""
        from readtrack.bench.case import Bench
        from readtrack.bench.compiled import with_compiled
        from readtrack.bench.measure import run_cases
        from readtrack.bench.sampling import PLANS
        from readtrack.runs.worker import torch_settings

        torch_settings.seed(run.seed)
        torch_settings.set_threads(torch_settings.benchmark_threads(run.budget))
        self._events.emit("phase", name="benchmark")
        bench = Bench(device=run.device, dtype=dtype, budget=run.budget)
        cases = list(manager.hook.benchmark(bench=bench) or ())
        if change is not None:
            cases = [change(case) for case in cases]
        if compiled:
            cases = [with_compiled(case, run.device) for case in cases]
        total = PLANS[run.budget].rounds * sum(len(case.cost) * len(case.variants) for case in cases)
        done = 0
        last: dict[str, dict[str, Any]] = {}

        def emit(event: str, **fields: Any) -> None:
            nonlocal done
            self._events.emit(event, **fields)
            if event == "measurement":
                done += 1
                last[json.dumps([fields[name] for name in ("case", "axes", "variant", "mode")])] = fields
                self._events.emit("progress", label=fields["case"], done=done, total=total, eta=None)

        if cases:
            run_cases(
                cases,
                device=run.device,
                dtype=dtype,
                budget=run.budget,
                seed=run.seed,
                emit=emit,
                check_cancelled=run.check_cancelled,
            )
        return list(last.values())

    def _warn(self, text: str) -> None:
        self._events.emit("warning", text=text)

    # Stopping

    def _listen(self) -> None:
        with os.fdopen(self._commands, "rb") as lines:
            for line in lines:
                command = json.loads(line)
                if command["cmd"] == "cancel":
                    self._stop(command["reason"])

    def _stop(self, reason: StopReason) -> None:
        self._stop_reason = self._stop_reason or reason
        self._stop_asked.set()
        if self._run is not None:
            self._run.cancelled = True

    def _check_stopped(self) -> None:
        if self._stop_reason is not None:
            raise RunCancelled

    def _heartbeat_loop(self) -> None:
        beat = time.monotonic()
        # Less often during a benchmark, which trimming would disturb.
        while not self._ending.wait(_HEARTBEAT if self._events.phase == "benchmark" else _TRIM):
            log.trim(self._folder)
            if time.monotonic() - beat < _HEARTBEAT:
                continue
            beat = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk must not end this thread
                self._heartbeat()
            if self._overdue():
                self._enforce_deadline()

    def _overdue(self) -> bool:
        if self._job is None or self._job.timeout is None:
            return False
        late = time.monotonic() - self._started - self._job.timeout
        return late > 0 and (late > _GRACE_OWNER or (self._folder / DETACHED).exists())

    def _enforce_deadline(self) -> None:
        """Stop the run from inside, because its starter has exited or is suspended."""
        self._stop("timed_out")
        if self._ending.wait(_GRACE_ASKED):
            return
        os.killpg(0, signal.SIGINT)
        if self._ending.wait(_GRACE_INTERRUPTED):
            return
        faulthandler.dump_traceback()
        home = Home()
        place = log.last_place(self._folder, [*search_path(home), str(home.practice)])
        self._write_end("timed_out", stopped(load_run(self._folder), "timed_out", "killed", place))
        kill_family(self._process)
        kill_leftover_processes(self._folder.name)
        os.killpg(0, signal.SIGKILL)

    def _heartbeat(self) -> None:
        import psutil

        from readtrack import devices

        processes = [self._process]
        if self._events.phase != "benchmark":  # listing children takes milliseconds
            processes += self._process.children(recursive=True)
        rss, cpu = 0, 0.0
        for process in processes:
            try:
                if process.pid != self._sentinel:
                    rss += process.memory_info().rss
                    times = process.cpu_times()
                    cpu += times.user + times.system
            except psutil.Error:
                continue  # ended in the meantime
        self._rss = rss
        now = time.monotonic()
        (before, at), self._cpu = self._cpu, (cpu, now)
        # The processor time of ended children is lost.
        used = max(0.0, cpu - before) / max(now - at, 1e-3)
        memory = devices.device_memory(self._device) if self._device is not None else None
        self._events.emit("heartbeat", rss=rss, cpu=round(used, 3), device_memory=memory)

    # The end

    def _classify_exception(self, error: BaseException) -> tuple[Outcome, str]:
        # Release what the plugin allocated; the traceback's line numbers stay.
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            self._stop_asked.wait(0.2)  # SIGINT may arrive before the command with the reason
        if self._stop_reason or isinstance(error, (RunCancelled, KeyboardInterrupt)):
            reason = self._stop_reason or "cancelled"
            return reason, stopped(load_run(self._folder), reason)
        from readtrack.plugins.load import PluginError, where

        cause = error.__cause__ if isinstance(error, PluginError) and error.__cause__ else error
        memory = memory_kind(cause)
        usage = isinstance(error, ReadtrackError) and not isinstance(error, PluginError)
        place = error.where if isinstance(error, PluginError) else where(error)
        told = message(error)
        self._events.emit(
            "error",
            kind="usage" if usage else "memory" if memory else "plugin",
            exit_code=error.exit_code if isinstance(error, ReadtrackError) else 1,
            type=type(cause).__name__,
            message=told,
            phase=self._events.phase,
            traceback="" if usage else short_traceback(cause),
            where=place or None,
        )
        if memory:
            held = f" at {format_bytes(self._rss)} of host memory" if self._rss else ""
            return (
                "out_of_memory",
                f"{memory} memory ran out in phase {self._events.phase}{held}; a smaller budget needs less",
            )
        if isinstance(error, ReadtrackError):
            return "failed", told
        return "failed", f"{type(error).__name__}: {told}" + (f" ({place})" if place else "")

    def _finish(self, outcome: Outcome, detail: str) -> NoReturn:
        if os.getpid() != self._process.pid:
            os._exit(1)  # a fork that the plugin made and forgot
        self._ending.set()
        with contextlib.suppress(OSError):  # no room except for the end event
            self._events.emit("phase", name="teardown")
            self._heartbeat()
        kill_family(self._process)
        kill_leftover_processes(self._folder.name, os.getpgrp())
        os.chdir(self._folder)
        with contextlib.suppress(OSError):  # not empty: keep it
            (self._folder / "scratch").rmdir()
        self._write_end(outcome, detail)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the plugin may have replaced the stream
                stream.flush()
        log.trim(self._folder)
        # Skip threads that the plugin left behind and libraries' clean-up, which could change the outcome.
        os._exit(0)

    def _write_end(self, outcome: Outcome, detail: str) -> None:
        self._events.emit("end", outcome=outcome, detail=detail)
        write_result(self._folder, load_run(self._folder))


def _speedups(claims: Sequence[Claim]) -> list[Speedup]:
    return [bound for claim in claims for bound in claim.timed if isinstance(bound, Speedup)]


def _check_break(job: Job, claims: Sequence[Claim]) -> None:
    """Raise ReadtrackError for a break that no claim names."""
    known = sorted({one.name for claim in claims for one in claim.breaks})
    if job.broken and job.broken not in known:
        raise ReadtrackError(no_such_break(job.paper, job.broken, known))
