"""Time as a sync sees it, in one object, so that tests can let it run faster."""

from __future__ import annotations

import threading
import time


class SyncCancelled(Exception):
    """The reader asked the sync to stop."""


class Clock:
    def now(self) -> float:
        """Seconds since some moment; never goes back. For pauses and deadlines."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970, as the machine believes. Only for what another process shall understand."""
        return time.time()

    def sleep(self, seconds: float, cancel: threading.Event) -> None:
        """Raises Cancelled as soon as `cancel` is set."""
        if cancel.wait(max(0.0, seconds)):
            raise SyncCancelled
