"""`readtrack sync` on a terminal: finished papers scroll up, current downloads are redrawn below them."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from readtrack import signs
from readtrack.sync.report import FINAL, SyncProgress, SyncSummary
from readtrack.text import format_bytes, format_duration, one_line


class LiveSyncView:
    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._papers: dict[str, SyncProgress] = {}
        self._now: SyncProgress | None = None
        self._notice = ""

    def __enter__(self) -> None:
        self._live.start()
        # If the process is killed while the region is shown, the terminal must keep its cursor.
        self._console.show_cursor(True)

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def event(self, progress: SyncProgress) -> None:
        if not progress.paper:
            self._notice = progress.message
            return
        self._papers[progress.paper] = self._now = progress
        if progress.state in ("downloading", "metadata"):
            self._notice = ""
        if progress.state == "done":
            self._console.print(Text.assemble((signs.PASSED, "green"), f" {progress.paper}"))

    def tick(self, *, stopping: bool) -> None:
        self._live.update(self._region(stopping), refresh=True)

    def end(self, summary: SyncSummary) -> None:
        self._live.update(Text(""), refresh=True)
        style = "green" if summary.exit_code == 0 else "yellow"
        self._console.print(Text(summary.headline, style=style))
        for line in summary.details:
            self._console.print(Text(f"  {one_line(line)}"))

    def _region(self, stopping: bool) -> RenderableType:
        rows: list[RenderableType] = []
        now = self._now
        if now is not None and now.state == "downloading":
            line = Table.grid(padding=(0, 1))
            line.add_column(width=20, no_wrap=True)
            line.add_column(width=24)
            line.add_column(no_wrap=True)
            bar = ProgressBar(total=now.total or None, completed=now.bytes, width=24, pulse=not now.total)
            of = f" of {format_bytes(now.total)}" if now.total else ""
            line.add_row(Text(now.paper), bar, Text(f"{format_bytes(now.bytes)}{of}"))
            rows.append(line)
        elif now is not None and now.state == "metadata":
            rows.append(Text("asking arXiv for abstracts"))
        if now is not None:
            done = sum(progress.state in FINAL for progress in self._papers.values())
            eta = f", about {format_duration(now.eta)} left" if now.eta else ""
            rows.append(Text(f"{done} of {len(self._papers)} papers{eta}. Ctrl+C stops.", style="dim"))
        if self._notice:
            rows.append(Text(self._notice, style="yellow"))
        if stopping:
            rows.append(Text("stopping ...", style="yellow"))
        return Group(*rows)
