"""Runs syncs for `test_kill`: one in a forked child for each line on stdin, whose process id it prints.

After another line, it waits for the child and prints its exit code.

This is not a test. The engine uses a clock on which three seconds pass in three milliseconds. Modules are
imported once, so that a child starts immediately.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import arxiv  # noqa: F401 (imported before the children are forked)

import readtrack.sync.client
import readtrack.sync.transfer  # noqa: F401
from readtrack.home import Home
from readtrack.library import Library
from readtrack.sync.clock import Clock, SyncCancelled
from readtrack.sync.engine import Sync


class ShortNights(Clock):
    """A clock that sleeps for a thousandth of the time and counts all of it."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> float:
        return time.monotonic() + self._skipped

    def wall(self) -> float:
        return time.time() + self._skipped

    def sleep(self, seconds: float, cancel: threading.Event) -> None:
        if cancel.wait(max(0.0, seconds) / 1000):
            raise SyncCancelled
        self._skipped += max(0.0, seconds)


def main() -> None:
    library = Library.open(Home())
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            summary = Sync(library, clock=ShortNights()).run()
            print(*summary.details, sep="\n", file=sys.stderr)
            os._exit(summary.exit_code)
        print(child, flush=True)
        sys.stdin.readline()  # until then the child remains, so its process id is not reused
        _, outcome = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(outcome), flush=True)


if __name__ == "__main__":
    main()
