"""The clock of a sync, in one object, so that tests can speed it up."""

from __future__ import annotations

import threading
import time


class SyncCancelled(Exception):
    """The reader stopped the sync."""


class Clock:
    def now(self) -> float:
        """Monotonic seconds, for pauses and deadlines."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970 by the system clock. Only for values shared with other processes."""
        return time.time()

    def sleep(self, seconds: float, cancel: threading.Event) -> None:
        """Sleep for some seconds. Raises SyncCancelled as soon as `cancel` is set."""
        if cancel.wait(max(0.0, seconds)):
            raise SyncCancelled
