"""A run, live or past: a head with phases and progress, and a page for each kind of result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from readtrack.tui.actions import bindings
from readtrack.tui.theme import wants_ascii
from readtrack.tui.widgets.line_view import Lines, LineView, drawn_line, join

if TYPE_CHECKING:
    # The pages are imported when a run is shown, which speeds up the app's start.
    from readtrack.present.claims import Baseline
    from readtrack.runs.record import Record

TABS = ("Overview", "Claims", "Benchmark", "Artifacts", "Log")
_PAUSE = 3.0  # seconds, longer than an evaluation between two epochs


class Growing:
    """Tracks which curve of a live run is growing. A short pause of that curve does not switch to another."""

    def __init__(self) -> None:
        self.name = ""
        self._lengths: dict[str, int] | None = None
        self._grew_at = -math.inf

    def look(self, record: Record) -> None:
        now = time.monotonic()
        lengths = {name: sum(map(len, arms.values())) for name, arms in record.curves.items()}
        before = lengths if self._lengths is None else self._lengths
        grown = [name for name, length in lengths.items() if length > before.get(name, 0)]
        self._lengths = lengths
        if self.name in grown:
            self._grew_at = now
        elif grown and now - self._grew_at >= _PAUSE:
            self.name, self._grew_at = grown[0], now


class RunView(Vertical):
    """Shows one record. `show` switches to another record; `refresh_run` redraws its changes."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("run")
    DEFAULT_CSS = """
    RunView > Static { height: 1; }
    RunView > #run-tabs { margin-top: 1; margin-bottom: 1; }
    """

    def __init__(
        self,
        beside: Callable[[str], Baseline],
        *,
        id: str | None = None,  # noqa: A002
    ) -> None:
        """`beside` maps a paper to the reference verdicts for its runs without the idea."""
        super().__init__(id=id)
        self._beside = beside
        self._title = Static(id="run-title", markup=False)
        self._phases = Static(id="run-phases", markup=False)
        self._progress = Static(id="run-progress", markup=False)
        self._tabs = Static(id="run-tabs", markup=False)
        self.page = LineView(self._lines, id="run-page")
        self.record: Record | None = None
        self.folder = Path()
        self.tab = 0
        self._heading = ""
        self._metric: int | None = None  # the curve chosen by the reader
        self._growing = Growing()
        self._log_scale: bool | None = None
        self._all_curves = False
        self._pictures: dict[tuple[Path, int], list[Content] | None] = {}
        self._made: dict[object, Lines] = {}  # slow pages, cached for the record's last event
        self._made_of: object = None

    def compose(self) -> ComposeResult:
        yield self._title
        yield self._phases
        yield self._progress
        yield self._tabs
        yield self.page

    def show(self, record: Record, folder: Path, name: str) -> None:
        if self.record is None or self.record.run_id != record.run_id:
            self.tab, self._metric, self._log_scale = 0, None, None
            self._growing = Growing()
            self._pictures.clear()
        self.record, self.folder, self._heading = record, folder, name
        self.refresh_run(top=True)

    def refresh_run(self, *, top: bool = False) -> None:
        if self.record is None:
            return
        self._growing.look(self.record)
        self._refresh_head(self.record)
        live = self.record.outcome is None
        follow = TABS[self.tab] == "Log" and (self.page.at_end or top) and live
        self.page.rebuild(top=top)
        if follow:
            self.page.scroll_end(animate=False, immediate=True)

    def _refresh_head(self, record: Record) -> None:
        from readtrack.tui.widgets import run_pages

        width = self.page.scrollable_content_region.width or self.size.width
        for widget, draw in (
            (self._title, lambda: run_pages.title_line(record, self._heading, width)),
            (self._phases, lambda: run_pages.phase_line(record, width)),
            (self._progress, lambda: run_pages.progress_line(record, width)),
            (self._tabs, lambda: Content(" ").join(self._tab_names(record))),
        ):
            widget.update(drawn_line(draw).truncate(width, ellipsis=True), layout=False)

    def on_resize(self) -> None:
        """Redraw the overview, which depends on the height, and keep a log at its end. The page handles its
        width itself.
        """
        if TABS[self.tab] in ("Overview", "Log"):
            self.refresh_run()
        elif self.record is not None:
            self._refresh_head(self.record)

    def _tab_names(self, record: Record) -> list[Content]:
        from readtrack.present.claims import counted

        counts = {
            "Claims": counted(record),
            "Benchmark": len(record.measurements),
            "Artifacts": len(record.artifacts),
        }
        parts: list[Content] = []
        for index, name in enumerate(TABS):
            count = f" {counts[name]}" if counts.get(name) else ""
            if index == self.tab:
                parts.append(join(("▌", "$link"), (f"{name}{count} ", "bold $heading on $panel")))
            else:
                parts.append(join((f" {name}{count} ", "$muted")))
        return parts

    def _lines(self, width: int) -> Lines:
        record = self.record
        if record is None:
            return []
        from readtrack.tui.widgets import claims_page, run_pages

        width -= 1  # one column of padding before the scroll bar
        name = TABS[self.tab]
        if name == "Claims":
            return claims_page.page(record, width, self._beside(record.paper))
        if name == "Artifacts":
            return run_pages.artifacts(record, self.folder, width, self._picture)
        if name == "Log":
            return run_pages.log(record, self.folder, width)
        height = self.page.scrollable_content_region.height
        if self._made_of != (record.run_id, record.arrived, record.outcome):
            self._made_of = record.run_id, record.arrived, record.outcome
            self._made.clear()
        wanted = (name, width, height, self.on_top(record), self._log_scale, self._all_curves)
        if wanted not in self._made:
            self._made[wanted] = self._make(record, name, width, height)
        return self._made[wanted]

    def _make(self, record: Record, name: str, width: int, height: int) -> Lines:
        from readtrack.tui.widgets import bench_page, run_pages

        if name == "Benchmark":
            return bench_page.benchmark(record, width)
        return run_pages.overview(
            record,
            width,
            height,
            metric=self.on_top(record),
            log_scale=self._log_scale,
            all_curves=self._all_curves,
        )

    def on_top(self, record: Record) -> int:
        """The curve to show: the reader's choice, else the growing one, and after the run the headline."""
        names = list(record.curves)
        if self._metric is not None:
            return self._metric % max(len(names), 1)
        wanted = self._growing.name if record.outcome is None else record.headline_curve
        return names.index(wanted) if wanted in names else 0

    def _picture(self, path: Path, columns: int) -> list[Content] | None:
        """An image's lines, or None while it loads. The first call starts loading."""
        key = path, columns
        if key not in self._pictures:
            self._pictures[key] = None
            load = partial(self._load_picture, key)
            self.run_worker(load, thread=True, group="pictures", exit_on_error=False)
        return self._pictures[key]

    def _load_picture(self, key: tuple[Path, int]) -> None:
        from readtrack.tui.widgets import kitty, picture

        send = self._send if kitty.is_spoken() else None
        lines = picture.load(*key, ascii_only=wants_ascii(), send=send)
        self.app.call_from_thread(self._picture_came, key, lines)

    def _send(self, text: str) -> None:
        """Write to the terminal between two frames. Textual's only public method that does this is the one
        for the clipboard.
        """
        driver = self.app._driver
        if driver is not None:
            driver.write(text)

    def _picture_came(self, key: tuple[Path, int], lines: list[Content]) -> None:
        self._pictures[key] = lines
        if TABS[self.tab] == "Artifacts":
            self.page.rebuild()

    def on_click(self, event: events.Click) -> None:
        """Select a tab by clicking its name."""
        if event.widget is None or event.widget.id != "run-tabs" or self.record is None:
            return
        end = 0
        for index, part in enumerate(self._tab_names(self.record)):
            end += part.cell_length + 1
            if event.x < end:
                self._to_tab(index - self.tab)
                return

    def action_next_tab(self) -> None:
        self._to_tab(1)

    def action_previous_tab(self) -> None:
        self._to_tab(-1)

    def _to_tab(self, direction: int) -> None:
        self.tab = (self.tab + direction) % len(TABS)
        self.refresh_run(top=True)

    def action_next_metric(self) -> None:
        if self.record is not None and self.record.curves:
            self._metric = (self.on_top(self.record) + 1) % len(self.record.curves)
            self._all_curves = False
            self.tab = 0
            self.refresh_run(top=True)

    def action_all_curves(self) -> None:
        self._all_curves = not self._all_curves
        self.tab = 0
        self.refresh_run(top=True)

    def action_log_scale(self) -> None:
        """Toggle the log scale, starting from the scale that suits the curve."""
        if self.record is None or not self.record.curves:
            return
        from readtrack.tui.widgets import run_pages

        name = list(self.record.curves)[self.on_top(self.record)]
        shown = run_pages.is_log(self.record, name, self._log_scale)
        self._log_scale = not shown
        self.tab = 0
        self.refresh_run()
