"""Supervises one run on the machine where it runs: `python -m readtrack.places.shepherd FOLDER`.

It has no terminal. Each start is an attempt with its own folder, which is a home for one run, so two attempts
never write to the same file. The worker ends with its shepherd.

    FOLDER/job.json, code     the job, and the hash of its code
    FOLDER/cancel             number of cancel requests by the reader
    FOLDER/lock               held by a living shepherd
    FOLDER/done               the shepherd has finished, whatever its engine reports
    FOLDER/lease              touched every two seconds, for processes that cannot see the lock
    FOLDER/attempts/NAME/     a home: runs/, and the paper's code as plugins/
"""

from __future__ import annotations

import fcntl
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.places import folders
from readtrack.runs import launcher
from readtrack.runs.events import EventWriter
from readtrack.runs.job import Job
from readtrack.runs.store import load, write_end_event

_TICK = 0.1  # seconds
_RENEW = 2.0  # seconds


def main(folder: Path, lock: int | None = None) -> None:
    """The shepherd in its own process, where a signal means that the machine is being reclaimed.

    lock  inherited descriptor that already holds the lock
    """
    signals: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, receive)
    if lock is None:
        tend(folder, signals)
    else:
        _tend(folder, signals)


def tend(folder: Path, signals: Sequence[int] = ()) -> None:
    """Run the job once, unless an earlier attempt is complete or another shepherd supervises it.

    signals  grows when this process is asked to end
    """
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _tend(folder, signals)


def _tend(folder: Path, signals: Sequence[int]) -> None:
    earlier = folders.attempts(folder)
    ends = [load(folders.attempt(folder, name)).outcome for name in earlier]
    if any(end not in (None, "interrupted") for end in ends):
        (folder / "done").touch()
        return
    job = Job.read(folder)
    # A separate id for each attempt, so that cleaning up after one spares the next.
    number = len(earlier) + 1
    job = replace(job, run_id=f"{job.run_id}.{number}", resumes=job.resumes or job.run_id)
    home = Home(folder / "attempts" / f"{number:03}-{secrets.token_hex(3)}")
    home.ensure()
    root = folder.parents[1]
    (home.root / "plugins").symlink_to(root / "code" / (folder / "code").read_text())
    (root / "cache").mkdir(exist_ok=True)
    home.cache.symlink_to(root / "cache")
    try:
        process = launcher.start(job, home)
    except ReadtrackError as error:
        _could_not_start(home, job, str(error))
    else:
        _follow(process, folder, signals)
        if signals and process.poll() == "interrupted":
            return  # not done: its engine may requeue it
    (folder / "done").touch()


def _follow(process: launcher.RunHandle, folder: Path, signals: Sequence[int]) -> None:
    asked, renewed = 0, 0.0
    while process.poll() is None:
        while asked < _asked(folder):
            process.cancel()
            asked += 1
        if signals and process.stop_level is None:
            process.cancel("interrupted")
        if time.monotonic() - renewed > _RENEW:
            (folder / "lease").touch()
            renewed = time.monotonic()
        time.sleep(_TICK)


def _could_not_start(home: Home, job: Job, reason: str) -> None:
    folder = home.ensure(home.runs / job.run_id)
    job.write(folder)
    events = EventWriter(folder)
    events.emit(
        "error", kind="usage", type="ReadtrackError", message=reason, phase="", traceback="", where=""
    )
    events.close()
    write_end_event(folder, "failed", reason)


def _asked(folder: Path) -> int:
    try:
        return int((folder / "cancel").read_text())
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
