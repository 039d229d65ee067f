"""Shows `readtrack run` in a pipe, as plain lines or JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from readtrack.cli import terminal
from readtrack.present import benchmarks, claims, runs
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.runs.events import Event
    from readtrack.runs.record import Record


class View(Protocol):
    """Shows one run. `record` already includes the event."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def event(self, event: Event, record: Record) -> None: ...

    def stopping(self, stop_level: str) -> None:
        """Show that the reader stopped the run. `stop_level` says how forcefully."""

    def tick(self, record: Record) -> None:
        """Called about ten times a second."""

    def end(self, record: Record, folder: Path | None) -> None:
        """Show the end of the run. `folder` contains its record; None if it is not kept."""


class JsonView:
    """Prints each event unchanged as a line, then a line with `"event": "result"`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, event: Event, record: Record) -> None:
        self._line(event)

    def stopping(self, stop_level: str) -> None:
        terminal.print_err(f"readtrack: stopping ({stop_level})")

    def tick(self, record: Record) -> None:
        pass

    def end(self, record: Record, folder: Path | None) -> None:
        kept = None if folder is None else str(folder)
        self._line({"event": "result", **asdict(record.summary()), "folder": kept})

    @staticmethod
    def _line(document: Mapping[str, object]) -> None:
        terminal.print_json(document, indent=None)
        terminal.flush()


class PlainView:
    """Prints a line for each event. Curves are printed at the end of their phase, with their last values."""

    def __init__(self) -> None:
        self._said_metrics: set[tuple[str, str]] = set()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, event: Event, record: Record) -> None:
        if event["event"] == "hello":
            budget = f"{record.job.budget} budget, seed {record.job.seed}" if record.job else ""
            self._line("run", f"{record.run_id}, {budget}")
        elif event["event"] == "phase":
            self._metrics(record)
            if event["name"] not in [name for name, _ in record.phases[-2:-1]]:
                self._line("phase", str(event["name"]))
        elif event["event"] == "environment":
            self._line("device", runs.environment(event))
        elif event["event"] == "claim":
            self._metrics(record)
            self._line("claim", claims.judged(event).line())
        elif event["event"] == "measurement" and (one := benchmarks.measured(event)).last_round:
            more = one.line()
            time = one.time or "-"
            self._line("measure", f"{one.point}: {one.name} ({one.role}) {time}{more and f', {more}'}")
        elif event["event"] == "log" or event["event"] == "warning":
            self._line(event["event"], runs.message(event["text"]))
        elif event["event"] == "artifact":
            self._line("file", f"{event['path']}  {event.get('caption') or event['name']}")

    def stopping(self, stop_level: str) -> None:
        terminal.print_err(f"readtrack: stopping ({stop_level})")

    def tick(self, record: Record) -> None:
        terminal.flush()

    def end(self, record: Record, folder: Path | None) -> None:
        if folder is None:
            return
        self._metrics(record)
        self._line("end", runs.end(record))
        self._line("record", str(folder))
        terminal.flush()

    def _metrics(self, record: Record) -> None:
        """Print the metrics that are new since the previous call."""
        for name, value in runs.metrics(record):
            if (name, value) not in self._said_metrics:
                self._said_metrics.add((name, value))
                self._line("metric", f"{name}: {value}")

    @staticmethod
    def _line(label: str, text: str) -> None:
        terminal.print_out(f"{label:<8} {one_line(text)}")
