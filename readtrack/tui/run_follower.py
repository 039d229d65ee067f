"""Follows the app's current run: reads new events of its process and updates its record."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.runs.events import EventReader
from readtrack.runs.record import Record
from readtrack.runs.store import load

if TYPE_CHECKING:
    from readtrack.runs.events import Event, Outcome
    from readtrack.runs.launcher import Running, StopLevel

_AT_ONCE = 2000  # events applied at once before the app handles other work
_BUSY = 0.05  # maximum number of seconds that a key waits for `look` to end
_DIES = 5.0  # maximum number of seconds that a killed process may take to end, on a busy machine


class RunFollower:
    """Call `look` every `period` seconds until `ended`.

    `look` reads files in a thread. At the end of a run, it also ends the run's leftover processes there.
    `record` changes only in the app's thread.
    """

    def __init__(self, process: Running, record: Record) -> None:
        self.process = process
        self.record = record
        self._reader = EventReader(process.folder)
        self._attempt = process.attempt
        self._anew = False
        self._polling = threading.Lock()

    @property
    def folder(self) -> Path:
        return self.process.folder

    @property
    def ended(self) -> bool:
        return self.record.outcome is not None

    @property
    def period(self) -> float:
        """Seconds until the next call of `look`. Longer during measurements, to avoid disturbing them, but
        short while a run is being stopped.
        """
        measuring = self.record.phase == "benchmark" and not self.process.stop_level
        return 0.5 if measuring else 0.1

    async def look(self) -> bool:
        """Read new events once, and return whether there is something new to show."""
        events, outcome, whole = await asyncio.to_thread(self._read)
        if self._anew and self.record.job is not None:
            self.record, self._anew = Record.from_job(self.record.job, expected=self.record.expected), False
        for start in range(0, len(events), _AT_ONCE):
            self._apply(events[start : start + _AT_ONCE])
            await asyncio.sleep(0)
        self._end(outcome, whole)
        return bool(events) or outcome is not None

    def catch_up(self) -> None:
        """Read the events for the first time, in a thread, before the run is shown."""
        events, outcome, whole = self._read()
        self._apply(events)
        self._end(outcome, whole)

    def cancel(self) -> StopLevel:
        """Ask the run to stop, with more force each time, unless its end is already being written."""
        if self._polling.acquire(timeout=_BUSY):
            try:
                return self.process.cancel()
            finally:
                self._polling.release()
        return self.process.stop_level or "asked"

    def kill(self) -> None:
        """Kill the run and wait until it has ended, at most `_DIES` seconds."""
        from readtrack.runs.launcher import STOP_LEVELS

        with self._polling:
            for _ in STOP_LEVELS:
                self.process.cancel()
            last = time.monotonic() + _DIES
            while self.process.poll() is None and time.monotonic() < last:
                time.sleep(0.01)

    def _read(self) -> tuple[list[Event], Outcome | None, Record | None]:
        """New events, the outcome if the run has ended, and the whole record if the events alone are not
        enough.
        """
        with self._polling:
            outcome = self.process.poll()
        if self.process.attempt > self._attempt:  # restarted elsewhere; its events start again
            self._attempt, self._anew = self.process.attempt, True
            self._reader = EventReader(self.process.folder)
        events = self._reader.read_new() if outcome is None else list(self._reader.read_rest())
        told = self.ended or any(event["event"] == "end" for event in events)
        # Another process may have written the end in the meantime. The folder has the complete record.
        return events, outcome, None if told or outcome is None else load(self.folder)

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            self.record.apply(event)

    def _end(self, outcome: Outcome | None, whole: Record | None) -> None:
        self.record = whole or self.record
        self.record.outcome = self.record.outcome or outcome
