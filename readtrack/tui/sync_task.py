"""The app's sync: its thread and its reports so far."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from readtrack.sync.report import FINAL, SyncProgress, SyncSummary

if TYPE_CHECKING:
    from readtrack.library import Library


class Syncing:
    """Run `work` in a thread. In the app's thread, call `take` until `ended`.

    papers   ids of the requested papers
    states   the latest state of each paper
    now      the paper that is being fetched
    notice   a message about the whole sync, shown until the next request
    summary  the result; None while the sync runs, and if it could not start (`error`)
    """

    def __init__(self, library: Library, papers: Sequence[str]) -> None:
        from readtrack.sync.engine import Sync

        self.papers = tuple(papers)
        self.states: dict[str, SyncProgress] = {}
        self.now: SyncProgress | None = None
        self.notice = ""
        self.summary: SyncSummary | None = None
        self.error: Exception | None = None
        self._events: queue.SimpleQueue[SyncProgress] = queue.SimpleQueue()
        self._outcome: SyncSummary | Exception | None = None
        self._cancel = threading.Event()
        self._eta: tuple[float | None, float] = (None, 0.0)  # seconds left, and when estimated
        self._sync = Sync(library, self.papers, report=self._events.put, cancel=self._cancel)

    def work(self) -> None:
        """Run the whole sync. Exceptions are kept for `take` instead of being raised."""
        try:
            self._outcome = self._sync.run()
        except Exception as error:
            self._outcome = error

    def cancel(self) -> None:
        """Stop the sync within a second. Fetched files are kept."""
        self._cancel.set()

    @property
    def stopping(self) -> bool:
        return self._cancel.is_set() and not self.ended

    @property
    def ended(self) -> bool:
        return self.summary is not None or self.error is not None

    @property
    def done(self) -> int:
        """The number of papers in a final state."""
        return sum(progress.state in FINAL for progress in self.states.values())

    @property
    def eta(self) -> float | None:
        """Estimated seconds until the end, or None."""
        left, at = self._eta
        return None if left is None or self.ended else max(1.0, left - (time.monotonic() - at))

    def take(self) -> set[str]:
        """Process the reported events, and return the papers that may have new files."""
        outcome = self._outcome  # before the events: all of them precede the end
        moved: set[str] = set()
        while not self._events.empty():
            progress = self._events.get()
            if not progress.paper:
                self.notice = progress.message
                continue
            before = self.states.get(progress.paper)
            if before is None or before.state != progress.state:
                moved.add(progress.paper)
            if progress.state in ("metadata", "downloading"):
                self.notice = ""
            if progress.eta != self._eta[0]:
                self._eta = progress.eta, time.monotonic()
            self.states[progress.paper] = progress
            self.now = None if progress.state in FINAL else progress
        if isinstance(outcome, SyncSummary):
            self.summary = outcome
        else:
            self.error = outcome
        return moved
