"""The run that the app looks after: its process, and its record as the events come in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.runs.events import EventReader
from readtrack.runs.record import Record, load

if TYPE_CHECKING:
    from readtrack.runs.launcher import Process


class Following:
    """Call `tick` after every `period` seconds until `ended`."""

    def __init__(self, process: Process, record: Record) -> None:
        self.process = process
        self.record = record
        self._reader = EventReader(process.folder)

    @property
    def folder(self) -> Path:
        return self.process.folder

    @property
    def ended(self) -> bool:
        return self.record.outcome is not None

    @property
    def period(self) -> float:
        """Seconds until the next look. While the child measures, the app keeps its hands off the processor;
        a run that is being stopped is watched closely again.
        """
        measuring = self.record.phase == "benchmark" and not self.process.rung
        return 0.5 if measuring else 0.1

    def tick(self) -> bool:
        """Look once; True if there is something new to show."""
        outcome = self.process.poll()
        events = self._reader.read_new()
        for event in events:
            self.record.apply(event)
        if outcome is not None and not self.ended:
            # Somebody else wrote the end while we were looking: the folder has the whole story.
            self.record = load(self.folder)
            self.record.outcome = self.record.outcome or outcome
        return bool(events) or outcome is not None
