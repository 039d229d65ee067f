"""Find the live processes of runs, kill leftovers, and record the end of dead ones."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.home import Home
from readtrack.plugins.find import folders
from readtrack.runs.job import ELSEWHERE
from readtrack.runs.outcome import classify_exit
from readtrack.runs.record import SILENCE, Record
from readtrack.runs.store import load, run_folders, write_end_event

if TYPE_CHECKING:
    import psutil


_STARTING = 60.0  # seconds that a worker may take until its first event


WORKER = "readtrack.runs.worker"  # python -m WORKER <run folder>

_UNTIL_END_EVENT = 2.0  # seconds allowed between the end of a process and its `end` event


def reconcile(home: Home, *, report: Callable[[str], None] = lambda problem: None) -> list[str]:
    """Record the end of runs whose process is gone, and return their ids. Called when the app or command line
    starts.

    report  called with a message for each run whose end could not be saved
    """
    ended = []
    for folder in run_folders(home):
        # The other machine reports on runs there.
        if (folder / "result.json").exists() or (folder / ELSEWHERE).exists():
            continue
        record = load(folder)
        if not record.paper or _alive(folder, record):
            continue
        kill_leftover_processes(folder.name)
        plugin_folders = [str(place) for _, place in folders(home)]
        try:
            write_end_event(folder, *classify_exit(folder, record, None, plugin_folders=plugin_folders))
        except OSError as error:
            report(f"run {folder.name} has ended, but its result could not be saved: {error.strerror}")
        else:
            if record.job is not None and record.job.only == "exercises":
                shutil.rmtree(folder, ignore_errors=True)  # nobody will read the verdicts
            ended.append(folder.name)
    return ended


def _alive(folder: Path, record: Record) -> bool:
    """Whether a process may still write to this run."""
    quiet = time.time() - _last_change(folder)
    if record.hello is None:
        return quiet < _STARTING
    if record.environment.get("host") != socket.gethostname():
        return quiet < 10 * SILENCE  # a copied or shared folder, whose process cannot be looked up here
    process = _named_process(record)
    if process is None or not _looks_alive(record, process, folder):
        return quiet < _UNTIL_END_EVENT
    # A zombie: its starter is about to write its end.
    return process.status() != "zombie" or quiet < SILENCE


def _looks_alive(record: Record, process: psutil.Process, folder: Path) -> bool:
    """Whether the process matches the record by its start time or its arguments.

    One match is enough: a clock change moves the start time, and a renamed process has other arguments.
    """
    import psutil

    try:
        return _same_start(record, process) or _is_worker_of(process.cmdline(), folder)
    except psutil.Error:
        return False


def _last_change(folder: Path) -> float:
    for name in ("events.jsonl", "job.json"):
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            continue
    return 0.0


def worker_process(record: Record, folder: Path) -> psutil.Process | None:
    """The run's worker, if it is alive on this machine and may be signalled.

    `hello` comes from a file of unknown origin, and its pid is used as a process group. So the process must
    be owned by the reader, lead its group, have started at the time in `hello`, and have been started as the
    worker of this very folder.
    """
    import psutil

    process = _named_process(record)
    try:
        if (
            process is not None
            and _same_start(record, process)
            and process.uids().real == os.getuid()
            and os.getpgid(process.pid) == process.pid
            and _is_worker_of(process.cmdline(), folder)
        ):
            return process
    except (psutil.Error, OSError):
        return None
    return None


def _named_process(record: Record) -> psutil.Process | None:
    """The process with the pid in `hello`, which need not be a worker."""
    import psutil

    pid = record.hello.get("pid") if record.hello is not None else None
    if not isinstance(pid, int) or pid <= 1 or record.environment.get("host") != socket.gethostname():
        return None
    try:
        return psutil.Process(pid)
    except (psutil.Error, ValueError, OverflowError):
        return None


def _same_start(record: Record, process: psutil.Process) -> bool:
    began = record.hello.get("process_start") if record.hello is not None else None
    return isinstance(began, int | float) and abs(process.create_time() - began) < 2


def _is_worker_of(arguments: list[str], folder: Path) -> bool:
    *_, module, path = ["", "", *arguments]
    return module == WORKER and os.path.realpath(path) == os.path.realpath(folder)


def kill_family(process: psutil.Process) -> None:
    """Kill the descendants of a process that adopts orphans, except for the caller."""
    for _ in range(10):  # a dying process may have started another
        left = family(process)
        kill_each(left)
        if not left:
            return
        time.sleep(0.01)


def family(process: psutil.Process) -> list[psutil.Process]:
    """The living descendants of a process, except for the caller."""
    import psutil

    try:
        found = process.children(recursive=True)
    except psutil.Error:
        return []
    return [one for one in found if one.pid != os.getpid() and _lives(one)]


def _lives(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill_each(processes: Iterable[psutil.Process]) -> None:
    import psutil

    for process in processes:
        try:
            process.kill()  # psutil checks that the pid was not reused
        except psutil.Error:
            continue


def kill_leftover_processes(run_id: str, group: int | None = None) -> None:
    """Kill the processes that a run has left behind, except for the caller.

    These are processes with its READTRACK_RUN in their environment, in any session, and with `group` the
    members of that process group.
    """
    import psutil

    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid():
                continue
            in_group = group is not None and os.getpgid(process.pid) == group
            if in_group or process.environ().get("READTRACK_RUN") == run_id:
                process.kill()
        except (psutil.Error, OSError):
            continue  # another user's, or already ended
