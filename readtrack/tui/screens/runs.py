"""The table of all runs: sort, filter, pin, annotate, repeat, delete and compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from readtrack import signs
from readtrack.errors import ReadtrackError
from readtrack.plugins.edits import of_runs
from readtrack.present import marks, runs
from readtrack.present.actions import key
from readtrack.runs import store
from readtrack.runs.evidence import overall
from readtrack.runs.job import Job, new_job
from readtrack.runs.record import Record, RunSummary
from readtrack.text import counted, format_duration, one_line
from readtrack.tui import news
from readtrack.tui.actions import bindings, bound
from readtrack.tui.screens.dialog import Answering
from readtrack.tui.theme import verdict_mark
from readtrack.tui.widgets.key_hints import key_hints
from readtrack.tui.widgets.line_view import BLANK, Line, LineView, join, text, wrapped
from readtrack.tui.widgets.table import Cell, one_line_each
from readtrack.tui.widgets.targets import PastRun

if TYPE_CHECKING:
    from readtrack.tui.controllers.runs import RunController
    from readtrack.tui.shell import Shell

_ORDERS = ("newest", "paper", "verdict", "longest")
# Each heading has the width of the list (one less than the terminal's) from which its column is shown.
# `_cells` returns the cells in this order.
_WIDE = 110  # columns
_COLUMNS = (
    ("", 0),
    ("paper", 0),
    ("started", 0),
    ("result", 0),
    ("budget", _WIDE),
    ("seed", _WIDE),
    ("took", 70),
    ("device", _WIDE),
    ("claims, or why it ended", 0),
)


class _Kept(NamedTuple):
    """A run's pin and note, cached so that drawing a row reads no file."""

    pinned: bool
    note: str


class RunsScreen(Answering[str | Job | None]):
    """Returns the id of the run to show, the job to run again, or None on escape."""

    CSS_PATH: ClassVar = "runs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("runs"),
        bound("help", "app.help"),
        Binding("escape,q", "back", show=False),
    ]

    def __init__(self, controller: RunController) -> None:
        super().__init__()
        self._controller = controller
        self._all = controller.results
        self._order = 0
        self._words = ""
        self._chosen: list[str] = []  # run ids, at most two
        self._kept: dict[str, _Kept] = {}
        self._head = Static(id="runs-head", markup=False)
        self.list = LineView(self._lines, id="runs-list")
        self._status = Static(id="runs-status", markup=False)
        self._hints = Static(id="runs-hints", markup=False)

    @property
    def shell(self) -> Shell:
        return cast("Shell", self.app)

    def compose(self) -> ComposeResult:
        yield self._head
        yield self.list
        yield self._status
        yield self._hints

    def on_mount(self) -> None:
        self.list.focus()
        first = next(iter(self._shown()), None)
        self.list.rebuild(target=PastRun(first.run_id) if first is not None else None)
        self._refresh_lines()

    def on_resize(self) -> None:
        self._refresh_lines()

    @on(news.ResultsChanged)
    def _results_changed(self) -> None:
        self._all = self._controller.results
        self._kept.clear()
        self.list.rebuild()
        self._refresh_lines()

    def _folder(self, run_id: str) -> Path:
        return self.shell.library.home.runs / run_id

    def _kept_of(self, run: RunSummary) -> _Kept:
        if run.run_id not in self._kept:
            folder = self._folder(run.run_id)
            self._kept[run.run_id] = _Kept(store.is_pinned(folder), one_line(store.note(folder)))
        return self._kept[run.run_id]

    @property
    def run(self) -> RunSummary | None:
        """The selected run."""
        target = self.list.target
        return next((run for run in self._all if PastRun(run.run_id) == target), None)

    # Display

    def _shown(self) -> list[RunSummary]:
        found = [run for run in self._all if all(word in self._told(run) for word in self._words.split())]
        order = _ORDERS[self._order]
        if order == "paper":
            found.sort(key=lambda run: run.paper)
        elif order == "verdict":
            verdicts = list(marks.VERDICTS)
            found.sort(key=lambda run: verdicts.index(word) if (word := overall(run)) in verdicts else -1)
        elif order == "longest":
            found.sort(key=lambda run: -run.duration)
        return sorted(found, key=lambda run: not self._kept_of(run).pinned)

    def _told(self, run: RunSummary) -> str:
        """The text that the filter searches."""
        claims = " ".join(f"{name} {verdict}" for name, verdict, _ in run.claims)
        parts = (run.paper, run.run_id, runs.outcome(run.outcome), run.budget, run.device, run.condition)
        return " ".join((*parts, claims, self._kept_of(run).note)).casefold()

    def _lines(self, width: int) -> list[Line]:
        found = self._shown()
        if not found:
            words = (
                f"No run matches. Press {key('filter_runs')} to change the words."
                if self._words
                else f"No runs yet. Press {key('run')} to run a paper."
            )
            return [BLANK, *wrapped(words, width, "$muted", indent=1)]
        shown = [number for number, (_, from_width) in enumerate(_COLUMNS) if width >= from_width]
        names = [_COLUMNS[number][0] for number in shown]
        cells = [self._cells(run) for run in found]
        head, *rows = one_line_each(names, [[row[number] for number in shown] for row in cells], width)
        return [head, *(Line(row.content, PastRun(run.run_id)) for row, run in zip(rows, found, strict=True))]

    def _cells(self, run: RunSummary) -> list[Cell]:
        kept = self._kept_of(run)
        sign = f"{signs.CHOSEN if run.run_id in self._chosen else ' '}{signs.STAR if kept.pinned else ' '}"
        verdict = overall(run)
        mark = (
            verdict_mark(verdict)
            if verdict in marks.VERDICTS
            else (marks.OUTCOMES.get(verdict, signs.RUNNING), "$muted")
        )
        note = f"{kept.note} · " if kept.note else ""
        apart = f"{run.condition}  " if run.condition else ""
        return [
            text(sign, "bold $reading"),
            text(run.paper, "bold"),
            text(run.started[:16].replace("T", " "), "$muted"),
            text(f"{mark[0]} {runs.outcome(verdict)}", mark[1]),
            text(run.budget, "$muted"),
            text(run.seed, "$muted"),
            text(format_duration(run.duration)),
            text(run.device, "$muted"),
            join((apart, "$reading"), (note, "$link"), (run.headline, "$muted")),
        ]

    def _refresh_lines(self) -> None:
        words = f'   matching "{self._words}"' if self._words else ""
        count = len(self._all)
        total = counted(count, "run")
        if self._words:
            total = f"{len(self._shown())} of {total}"
        order = {"newest": "newest first", "longest": "longest first"}.get(
            _ORDERS[self._order], f"by {_ORDERS[self._order]}"
        )
        self._head.update(join(("Runs", "bold $heading"), f"   {total}", (f"   {order}{words}", "$muted")))
        self._hints.update(key_hints("runs", self.size.width - 2, enter="open"))

    def _say(self, *parts: object) -> None:
        self._status.update(join(*parts))  # type: ignore[arg-type]

    # Actions

    @on(LineView.Chosen)
    def _open(self, event: LineView.Chosen) -> None:
        assert isinstance(event.target, PastRun)
        self.dismiss(event.target.run_id)

    def action_back(self) -> None:
        if self._words:
            self._filter("")
        else:
            self.dismiss(None)

    def action_sort(self) -> None:
        self._order = (self._order + 1) % len(_ORDERS)
        self.list.rebuild()
        self._refresh_lines()

    def action_filter_runs(self) -> None:
        from readtrack.tui.screens.ask import InputDialog

        hint = "Words from the paper, verdict, outcome, budget, device, claim or note."
        self.app.push_screen(InputDialog("Show runs that match", hint, self._filter, self._words))

    def _filter(self, words: str) -> None:
        self._words = words.casefold().strip()
        self.list.rebuild()
        self._refresh_lines()

    def action_pin(self) -> None:
        run = self.run
        if run is not None:
            self._change(run, lambda folder: store.pin(folder, not self._kept_of(run).pinned))

    def action_run_note(self) -> None:
        from readtrack.tui.screens.ask import InputDialog

        run = self.run
        if run is not None:
            dialog = InputDialog(
                f"Note on this run of {run.paper}",
                "enter saves, esc goes back.",
                lambda line: self._change(run, partial(store.save_note, text=line)),
                self._kept_of(run).note,
            )
            self.app.push_screen(dialog)

    def action_delete(self) -> None:
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        run = self.run
        if run is None:
            return

        def chosen(answer: str | None) -> None:
            if answer == "d":
                self._change(run, store.delete)
                self._controller.read_results()

        answers = [Choice("d", "delete it", "its record, log and artifacts"), Choice("x", "keep it")]
        self.app.push_screen(
            ChoiceDialog(f"Delete the run of {run.paper} from {run.started[:10]}?", answers), chosen
        )

    def _change(self, run: RunSummary, change: Callable[[Path], None]) -> None:
        try:
            change(self._folder(run.run_id))
        except ReadtrackError as error:
            self._say((str(error), "$bad"))
            return
        self._kept.pop(run.run_id, None)
        if not self._folder(run.run_id).exists():
            self._all = [one for one in self._all if one.run_id != run.run_id]
            self._chosen = [run_id for run_id in self._chosen if run_id != run.run_id]
        self.list.rebuild()
        self._refresh_lines()

    def action_run_again(self) -> None:
        """Run the same job again."""
        run = self.run
        job = store.load(self._folder(run.run_id)).job if run is not None else None
        if job is None:
            self._say("That run's settings were not recorded.")
            return
        fresh = new_job(job.paper)
        self.dismiss(replace(job, run_id=fresh.run_id, created=fresh.created))

    def action_choose_run(self) -> None:
        """Mark up to two runs. A third replaces the first."""
        run = self.run
        if run is None:
            return
        if run.run_id in self._chosen:
            self._chosen.remove(run.run_id)
        else:
            self._chosen = [*self._chosen[-1:], run.run_id]
        self.list.rebuild()
        self.list.action_down()

    def action_show_edits(self) -> None:
        from readtrack.tui.paper_actions import show_edits

        if self.run is not None and not show_edits(self.shell, self.run.run_id):
            self._say("This run used the shipped code.")

    def action_compare(self) -> None:
        if len(self._chosen) != 2:
            self._say(
                f"Mark two runs of the same paper with {key('choose_run')}, then press {key('compare')}."
            )
            return
        folders = [self._folder(run_id) for run_id in self._chosen]

        def read() -> None:
            self.app.call_from_thread(self._compared, *map(store.load, folders))

        self.shell.in_background("read two runs", read)

    def _compared(self, a: Record, b: Record) -> None:
        from readtrack.tui.screens.paged import Paged
        from readtrack.tui.widgets import compare_page, edits_page

        if a.paper != b.paper:
            self._say(f"The marked runs are of different papers: {a.paper} and {b.paper}.")
        elif self.app.screen is self:
            a, b = sorted((a, b), key=lambda record: record.run_id)
            edits = of_runs(*(self._folder(record.run_id) for record in (a, b)))
            build = partial(compare_page.page, a, b, edits)
            diff = partial(edits_page.page, edits) if edits else None
            hint = f"j k scroll, {key('show_edits')} shows the code changes, esc goes back"
            self.app.push_screen(
                Paged(
                    f"Two runs of {a.paper}",
                    build,
                    hint if edits else "j k scroll, esc goes back",
                    wide=True,
                    edits=diff,
                )
            )
