"""One sync at a time, across the reader's terminals and homes, because arXiv counts requests per person."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home

if TYPE_CHECKING:
    from filelock import FileLock

_HOLDER = "sync.json"


@dataclass(frozen=True, slots=True)
class SyncHolder:
    """The sync that holds the lock: its process, and its start (local time)."""

    pid: int
    since: datetime


class AlreadyRunningError(NotAvailableError):
    pass


def state_folder(home: Home) -> Path:
    """The folder of the request throttle's state: the user's, shared by all homes; else the home's."""
    from platformdirs import user_state_path

    folder = user_state_path("readtrack", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return home.ensure(home.locks)
    return folder if os.access(folder, os.W_OK) else home.ensure(home.locks)


@contextmanager
def exclusive(home: Home) -> Iterator[Path]:
    """Hold the sync locks of the home and of the user; yields the folder for the throttle's state.

    Raises AlreadyRunningError at once if another process holds one of them. The locks are the operating
    system's and end with the process; the file next to the second only names its holder.
    """
    import psutil

    folder = state_folder(home)
    with _held(home, home.lock("sync", timeout=0)), _held(home, _user_lock(folder)):
        try:
            process = psutil.Process()
            since = datetime.now().timestamp()
            holder = {"pid": process.pid, "started": process.create_time(), "since": since}
            with contextlib.suppress(OSError):  # used only for the message below
                (folder / _HOLDER).write_text(json.dumps(holder), encoding="utf-8")
            yield folder
        finally:
            with contextlib.suppress(OSError):
                (folder / _HOLDER).unlink(missing_ok=True)


def _user_lock(folder: Path) -> FileLock:
    from filelock import FileLock

    return FileLock(folder / "user-sync.lock", timeout=0)


@contextmanager
def _held(home: Home, lock: FileLock) -> Iterator[None]:
    from filelock import Timeout

    try:
        lock.acquire()
    except Timeout:
        other = status(home)
        who = f" (process {other.pid}, since {other.since:%H:%M})" if other else ""
        text = f"a sync is already running{who}. Start this one when it has finished."
        raise AlreadyRunningError(text) from None
    except OSError as error:
        raise ReadtrackError(
            f"cannot lock {lock.lock_file} ({error.strerror}). Set READTRACK_HOME to a writable folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def status(home: Home) -> SyncHolder | None:
    """The user's running sync, in any process and for any home, or None."""
    import psutil

    try:
        holder = json.loads((state_folder(home) / _HOLDER).read_text(encoding="utf-8"))
        process = psutil.Process(int(holder["pid"]))
        if abs(process.create_time() - float(holder["started"])) > 2 or not process.is_running():
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return SyncHolder(process.pid, datetime.fromtimestamp(float(holder["since"])))
    except (OSError, ValueError, TypeError, KeyError, psutil.Error):
        return None
