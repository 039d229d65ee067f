"""The processes of runs: which are alive, what they leave behind, and the end of those that are gone."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
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


_UNTIL_END_EVENT = 2.0  # seconds between the end of a process and its `end` event


def reconcile(home: Home, *, report: Callable[[str], None] = lambda problem: None) -> list[str]:
    """End the runs whose process is gone: their ids. Call it when the app or the command line starts.

    `report` is told of each run whose end could not be written down, and why.
    """
    ended = []
    for folder in run_folders(home):
        # What runs elsewhere is for its place to say.
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
            report(f"run {folder.name} has ended, which could not be written down: {error.strerror}")
        else:
            ended.append(folder.name)
    return ended


def _alive(folder: Path, record: Record) -> bool:
    """Whether somebody may still write to this run."""
    quiet = time.time() - _last_change(folder)
    if record.hello is None:
        return quiet < _STARTING
    if record.environment.get("host") != socket.gethostname():
        return quiet < 10 * SILENCE  # a copied or shared folder: its process cannot be looked up here
    process = worker_process(record)
    if process is None:
        return quiet < _UNTIL_END_EVENT
    # An ended process that was not reaped yet: whoever started it is about to write its end.
    return process.status() != "zombie" or quiet < SILENCE


def _last_change(folder: Path) -> float:
    for name in ("events.jsonl", "job.json"):
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            continue
    return 0.0


def worker_process(record: Record) -> psutil.Process | None:
    """The run's process if it exists on this machine: the pid, and that it is the same process."""
    import psutil

    if record.hello is None:
        return None
    try:
        process = psutil.Process(int(record.hello["pid"]))
        # Either is enough: a clock that was set moves the start time, a renamed process has no such argument.
        same_start = abs(process.create_time() - float(record.hello["process_start"])) < 2
        if same_start or any(record.run_id in argument for argument in process.cmdline()):
            return process
    except (psutil.Error, KeyError, TypeError, ValueError):
        return None
    return None


def kill_leftover_processes(run_id: str, group: int | None = None) -> None:
    """Kill what a run has left running: processes with its READTRACK_RUN in their environment, whatever
    session they moved to, and with `group` the members of that process group. Never the caller itself.
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
            continue  # another user's, or ended in the meantime
