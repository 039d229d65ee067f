"""The parent's side of a run. It starts, follows and stops the worker and records its end.

One `RunHandle` serves the app and the command line. It has no thread or loop of its own: call `poll` about
ten times a second.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from readtrack import devices, interpreter, regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins.environment import child_environment
from readtrack.plugins.find import find, search_path
from readtrack.runs import log, outcome, settings
from readtrack.runs.events import Outcome
from readtrack.runs.job import ANSWERS, DETACHED, Job
from readtrack.runs.processes import WORKER, family, kill_each, kill_leftover_processes, worker_process
from readtrack.runs.record import Record
from readtrack.runs.store import load, read_result, write_end_event

if TYPE_CHECKING:
    import psutil

StopLevel = Literal["asked", "interrupted", "terminated", "killed"]
STOP_LEVELS: tuple[StopLevel, ...] = ("asked", "interrupted", "terminated", "killed")

# Seconds at each stop level before the next level.
_PATIENCE: dict[StopLevel, float] = {"asked": 2.0, "interrupted": 3.0, "terminated": 2.0}
_OWNER_WRITES = 1.0  # seconds in which the starter of an attached run must write the run's end


class Running(Protocol):
    """A started run: a `RunHandle` here, or a run on another machine.

    attempt  counts from 1; when it grows, the run and its event file have started again
    contact  "" if all is well, else a message about the machine that runs it
    """

    folder: Path
    run_id: str
    job: Job
    stop_level: StopLevel | None
    attempt: int
    contact: str

    def poll(self) -> Outcome | None: ...

    def cancel(self) -> StopLevel: ...

    def detach(self) -> None: ...


def start(job: Job, home: Home) -> RunHandle:
    """Write the job into a new run folder and start the worker in its own session.

    Raises ReadtrackError if the paper lacks a setting, the folder cannot be created or the interpreter for
    runs cannot be started, and NotAvailableError if that interpreter has no PyTorch or the device does not
    exist. Errors that only torch can detect end the run later.
    """
    interpreter.require_torch()
    devices.require(job.device)
    devices.require_dtype(job.dtype)
    if job.only in (None, "experiment"):  # other runs have no options, and report that themselves
        settings.check(job.settings, job.paper, find(home))
    python = interpreter.path()
    folder = home.ensure(home.runs) / job.run_id
    if folder.parent != home.runs:
        raise ReadtrackError(f"{job.run_id!r} is not a name for a run.")
    kills = outcome.oom_kills()
    try:
        (folder / "scratch").mkdir(parents=True)
        job.write(folder)
        if job.practice:
            shutil.copyfile(home.practice / f"{job.paper}.py", folder / ANSWERS)
        with (folder / "log.txt").open("ab") as output:
            child = subprocess.Popen(
                [python, "-u", "-P", "-m", WORKER, str(folder)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=folder / "scratch",
                env=_environment(job, home),
                start_new_session=True,
            )
    except FileExistsError as error:
        raise ReadtrackError(f"A run {job.run_id} already exists.") from error
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ReadtrackError(
            f"Could not start the run: {error.strerror}: {error.filename or folder}"
        ) from error
    import psutil

    return RunHandle(folder, home, job, psutil.Process(child.pid), child, oom_kills=kills)


def attach(folder: Path) -> RunHandle | None:
    """A handle for a live run that another process started, or None."""
    record = load(folder)
    process = worker_process(record, folder)
    if record.outcome is not None or record.job is None or process is None:
        return None
    return RunHandle(
        folder, Home(folder.parents[1]), record.job, process, None, oom_kills=outcome.oom_kills()
    )


def _environment(job: Job, home: Home) -> dict[str, str]:
    environment = child_environment(home)
    environment["READTRACK_RUN"] = job.run_id
    # The iteration order of sets of strings must follow from the seed.
    environment.setdefault("PYTHONHASHSEED", str(job.seed % 2**32))
    if sys.platform == "linux" and job.device in ("auto", "cpu"):
        # glibc returns blocks of 32 MiB and more to the system at once, and the page faults of the next
        # allocation would be part of every measured time. Other C libraries ignore these variables.
        environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(4 << 30))
        environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(4 << 30))
        environment.setdefault("MALLOC_TOP_PAD_", str(256 << 20))
    return environment


class RunHandle:
    """A run's process, owned (started here) or attached (started elsewhere).

    stop_level        None, "asked", "interrupted", "terminated" or "killed"
    attempt, contact  for runs on other machines; here always 1 and ""
    """

    attempt = 1
    contact = ""

    def __init__(
        self,
        folder: Path,
        home: Home,
        job: Job,
        process: psutil.Process,
        child: subprocess.Popen[bytes] | None,
        *,
        oom_kills: int | None,
    ) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.stop_level: StopLevel | None = None
        self._home = home
        self.job = job
        self._process = process
        self._child = child
        self._oom_kills = oom_kills
        self._started = time.monotonic()
        self._level_since = 0.0
        self._gone_since: float | None = None
        self._family: set[psutil.Process] = set()
        self._reason: outcome.StopReason | None = None
        self._outcome: Outcome | None = None

    def poll(self) -> Outcome | None:
        """The outcome if the run has ended, after its `end` event and result.json were written; else None.

        Enforces the deadline, escalates a stop in progress, and leaves no process of the run behind.
        """
        if self._outcome is None:
            if self._running():
                self._keep_stopping()
            elif self._owner_is_done():
                self._outcome = self._finalize()
        return self._outcome

    def cancel(self, reason: outcome.StopReason = "cancelled") -> StopLevel:
        """Ask the run to stop; each further call escalates to the next level, which is returned."""
        if self._outcome is None and self._running():
            self._reason = self._reason or reason
            self._escalate()
        return self.stop_level or "asked"

    def detach(self) -> None:
        """Let the run outlive this process. Raises ReadtrackError if that cannot be recorded."""
        try:
            os.close(regular.descriptor(self.folder / DETACHED, os.O_WRONLY | os.O_CREAT))
        except OSError as error:
            raise ReadtrackError(f"Could not leave the run running: {error.strerror}.") from error

    def _running(self) -> bool:
        import psutil

        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def _owner_is_done(self) -> bool:
        if self._child is not None or (self.folder / "result.json").exists():
            return True
        self._gone_since = self._gone_since or time.monotonic()
        return time.monotonic() - self._gone_since > _OWNER_WRITES

    # Stopping

    def _keep_stopping(self) -> None:
        now = time.monotonic()
        if self.stop_level is None:
            # The worker of an attached run enforces the deadline itself.
            overdue = self.job.timeout is not None and now - self._started > self.job.timeout
            if overdue and self._child is not None:
                self._reason = "timed_out"
                self._escalate()
        elif self.stop_level != "killed" and now - self._level_since > _PATIENCE[self.stop_level]:
            self._escalate()

    def _escalate(self) -> None:
        following = STOP_LEVELS.index(self.stop_level) + 1 if self.stop_level else 0
        if self._child is None and following == 0:
            following = 1  # only the starter holds the pipe through which a run is asked to stop
        self.stop_level = STOP_LEVELS[min(following, len(STOP_LEVELS) - 1)]
        self._level_since = time.monotonic()
        if self.stop_level == "asked":
            self._send({"cmd": "cancel", "reason": self._reason or "cancelled"})
        else:
            number = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM, "killed": signal.SIGKILL}
            self._signal_group(number[self.stop_level])

    def _send(self, command: dict[str, str]) -> None:
        if self._child is None or self._child.stdin is None:
            return
        try:
            self._child.stdin.write(json.dumps(command).encode() + b"\n")
            self._child.stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # it is ending

    def _signal_group(self, number: signal.Signals) -> None:
        # The worker adopts orphans of its plugin. Once it is gone, their origin is unknown.
        self._family.update(family(self._process))
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # the group is empty

    # The end

    def _finalize(self) -> Outcome:
        code, elapsed = None, None
        if self._child is not None:
            # Do this before the leader is reaped, because its group number may be reused afterwards.
            self._signal_group(signal.SIGKILL)
            code, elapsed = self._child.wait(), time.monotonic() - self._started
            if self._child.stdin is not None:
                self._child.stdin.close()
        kill_each(self._family)
        kill_leftover_processes(self.run_id)
        log.trim(self.folder)
        result = read_result(self.folder)
        if result is not None and result.outcome is not None:
            return result.outcome
        record = load(self.folder)
        found = self._classify_exit(code, record)
        try:
            record = write_end_event(self.folder, *found, elapsed=elapsed)
        except OSError:
            return record.outcome or found[0]  # the disk is full, so it cannot be written
        return record.outcome or found[0]

    def _classify_exit(self, code: int | None, record: Record) -> tuple[Outcome, str]:
        plugin_folders = [*search_path(self._home), str(self._home.practice)]
        if self._reason is not None:
            place = log.last_place(self.folder, plugin_folders)
            return self._reason, outcome.stopped(record, self._reason, self.stop_level or "", place)
        kills = (self._oom_kills, outcome.oom_kills())
        return outcome.classify_exit(self.folder, record, code, kills=kills, plugin_folders=plugin_folders)
