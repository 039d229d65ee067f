"""One sync at a time, over all of the reader's terminals."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home


@dataclass(frozen=True, slots=True)
class Running:
    """A sync that holds the lock: its process, and since when (local time)."""

    pid: int
    since: datetime


class AlreadyRunningError(NotAvailableError):
    pass


@contextmanager
def exclusive(home: Home) -> Iterator[None]:
    """Hold the sync lock. Raises AlreadyRunningError at once if somebody else does.

    The lock is the operating system's and ends with the process; the file beside it only says who has it.
    """
    import psutil
    from filelock import Timeout

    lock = home.lock("sync", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        other = status(home)
        who = f" (process {other.pid}, since {other.since:%H:%M})" if other else ""
        text = f"a sync is already running{who}. This one can start when that one is done."
        raise AlreadyRunningError(text) from None
    except OSError as error:
        raise ReadtrackError(
            f"cannot lock {home.locks} ({error.strerror}). "
            "Set READTRACK_HOME to a folder that can be written to."
        ) from error
    try:
        process = psutil.Process()
        holder = {"pid": process.pid, "started": process.create_time(), "since": datetime.now().timestamp()}
        with contextlib.suppress(OSError):  # it is only for the message above
            _path(home).write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            _path(home).unlink(missing_ok=True)
        lock.release()


def status(home: Home) -> Running | None:
    """The sync that runs now, in this process or another; None if there is none."""
    import psutil

    try:
        holder = json.loads(_path(home).read_text(encoding="utf-8"))
        process = psutil.Process(int(holder["pid"]))
        if abs(process.create_time() - float(holder["started"])) > 2 or not process.is_running():
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Running(process.pid, datetime.fromtimestamp(float(holder["since"])))
    except (OSError, ValueError, TypeError, KeyError, psutil.Error):
        return None


def _path(home: Home) -> Path:
    return home.locks / "sync.json"
