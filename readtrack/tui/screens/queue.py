"""Shows the queued runs. The reader can reorder and remove them."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from readtrack.runs.evidence import expected
from readtrack.runs.job import Job
from readtrack.text import counted, format_duration
from readtrack.tui import news
from readtrack.tui.actions import bound
from readtrack.tui.controllers.runs import RunController
from readtrack.tui.screens.ask import Choice, ChoiceDialog
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.widgets.line_view import Line, LineView, join, wrapped


class QueueScreen(Dialog[None]):
    CSS_PATH: ClassVar = "paged.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", show=False),
        bound("queue", "dismiss(None)"),
        Binding("J", "move(1)", show=False),
        Binding("K", "move(-1)", show=False),
        Binding("d", "drop", show=False),
        Binding("X", "clear", show=False),
        Binding("r", "begin", show=False),
    ]

    def __init__(self, runs: RunController) -> None:
        super().__init__()
        self._runs = runs
        self._page = LineView(self._lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Queue", classes="question", markup=False)
            yield self._page
            yield Static(
                "J K move down and up, d removes, X removes all, r starts the first, esc goes back",
                classes="hint",
                markup=False,
            )

    def on_mount(self) -> None:
        self._page.focus()
        if self._runs.waiting:
            self.call_after_refresh(self._page.go_to, self._runs.waiting[0].run_id)

    def _lines(self, width: int) -> list[Line]:
        waiting = self._runs.waiting
        if not waiting:
            words = "The queue is empty. Runs that you start while another is in progress are queued here."
            return wrapped(words, width)
        return [
            Line(_described(number, job, expected(job, self._runs.results)), job.run_id)
            for number, job in enumerate(waiting, start=1)
        ]

    @on(news.QueueChanged)
    def _refresh(self) -> None:
        """Redraw after a run has started or ended."""
        self._page.rebuild(target=self._page.target)

    def _changed(self, run_id: str) -> None:
        self._page.rebuild(target=run_id)

    def action_move(self, step: int) -> None:
        if isinstance(run_id := self._page.target, str):
            self._runs.move(run_id, step)
            self._changed(run_id)

    def action_drop(self) -> None:
        if isinstance(run_id := self._page.target, str):
            self._runs.drop(run_id)
            self._changed(self._runs.waiting[0].run_id if self._runs.waiting else "")

    def action_clear(self) -> None:
        """Ask before removing all runs, because X copies an arXiv id on other screens."""
        if not self._runs.waiting:
            return

        def chosen(answer: str | None) -> None:
            if answer == "d":
                self._runs.clear()
                self._changed("")

        question = f"Remove {counted(len(self._runs.waiting), 'run')} from the queue?"
        self.app.push_screen(ChoiceDialog(question, [Choice("d", "remove"), Choice("x", "keep")]), chosen)

    def action_begin(self) -> None:
        self.dismiss(None)
        self._runs.begin()


def _described(number: int, job: Job, seconds: float | None) -> Content:
    takes = f"about {format_duration(round(seconds))}" if seconds else ""
    where = job.place and f"on {job.place}"
    facts = [takes, job.budget, f"seed {job.seed}", job.device, where, job.condition]
    return join(
        (f" {number:>2}  ", "$faint"), (job.paper, "bold"), ("  " + " · ".join(filter(None, facts)), "$muted")
    )
