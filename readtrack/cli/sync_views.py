"""Shows `readtrack sync` in a pipe, as plain lines or JSON lines."""

from __future__ import annotations

from dataclasses import asdict
from types import TracebackType
from typing import Protocol

from readtrack.cli import terminal
from readtrack.sync.report import FINAL, SyncProgress, SyncSummary
from readtrack.text import one_line

_QUIET = ("up to date", "web only", "no source")  # these papers get no line; the summary counts them


class SyncView(Protocol):
    """Shows one sync."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def event(self, progress: SyncProgress) -> None: ...

    def tick(self, *, stopping: bool) -> None:
        """Called about ten times a second while there is no event."""

    def end(self, summary: SyncSummary) -> None: ...


class JsonSyncView:
    """Prints each event as a line, then a line with `"event": "summary"`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, progress: SyncProgress) -> None:
        terminal.print_json({"event": "progress", **asdict(progress)}, indent=None)

    def tick(self, *, stopping: bool) -> None:
        terminal.flush()

    def end(self, summary: SyncSummary) -> None:
        terminal.print_json(summary.as_json(), indent=None)


class PlainSyncView:
    """Prints a line for each changed paper, in columns for `grep` and `cut`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, progress: SyncProgress) -> None:
        if not progress.paper:
            terminal.print_err(f"readtrack: {progress.message}")
        elif progress.state in FINAL and progress.state not in _QUIET:
            terminal.print_out(
                f"{progress.state:<9}  {progress.paper:<20}  {one_line(progress.message)}".rstrip()
            )

    def tick(self, *, stopping: bool) -> None:
        terminal.flush()

    def end(self, summary: SyncSummary) -> None:
        for note in summary.notes:
            terminal.print_out(f"note       {one_line(note)}")
        terminal.print_out(summary.headline)
