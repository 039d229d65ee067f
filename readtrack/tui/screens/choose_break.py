"""Dialog to choose the ingredient that a run leaves out. It also shows the equivalent command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, get_args

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from readtrack.bench.case import Budget
from readtrack.claims import Break
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.screens.run_options import Selector
from readtrack.tui.widgets.line_view import BLANK, Line, LineView, join, wrapped

_WIDTH = 70  # columns of the page inside the dialog's frame
_MOST_LINES = 12


class BreakChoice(NamedTuple):
    name: str
    budget: str


class ChooseBreak(Dialog[BreakChoice | None]):
    """Returns the break and the budget, or None on escape."""

    CSS_PATH: ClassVar = "choose_break.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", show=False),
        Binding("left,h", "budget(-1)", show=False),
        Binding("right,l", "budget(1)", show=False),
    ]

    def __init__(self, paper: str, breaks: Sequence[Break], budget: str) -> None:
        super().__init__()
        self._paper = paper
        self._breaks = list(breaks)
        self._page = LineView(self._lines)
        self._page.styles.height = min(len(self._lines(_WIDTH)), _MOST_LINES)
        self._budget = Selector(get_args(Budget), budget, id="budget")
        self._budget.can_focus = False  # the page has the focus; left and right change the budget from there
        self._command = Static(id="command", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"Run {self._paper} with one ingredient broken", classes="question", markup=False)
            yield self._page
            yield self._budget
            yield self._command
            yield Static(
                "enter runs, ↑ ↓ move, ← → change the budget, esc goes back", classes="hint", markup=False
            )

    def on_mount(self) -> None:
        self._page.focus()
        self.call_after_refresh(self._page.go_to, self._breaks[0].name)
        self._show_command(self._breaks[0].name)

    def _lines(self, width: int) -> list[Line]:
        """Each break as a selectable name, with its description below."""
        lines: list[Line] = []
        for number, one in enumerate(self._breaks, 1):
            key = str(number) if number <= 9 else " "
            lines += [BLANK] if lines else []
            lines.append(Line(join(" ", (key, "bold $link"), "  ", (one.name, "bold")), one.name))
            lines += wrapped(one.takes_away, width, "$muted", indent=4) if one.takes_away else []
        return lines

    def on_line_view_moved(self, event: LineView.Moved) -> None:
        if event.target is not None:
            self._show_command(str(event.target))

    def on_selector_changed(self) -> None:
        if self._page.target is not None:
            self._show_command(str(self._page.target))

    def _show_command(self, name: str) -> None:
        words = ["readtrack", "run", self._paper, "--break", name]
        if self._budget.value != "quick":
            words += ["--budget", self._budget.value]
        short = "   judges no measured claim" if self._budget.value == "smoke" else ""
        self._command.update(join(("$ ", "$faint"), (shlex.join(words), "$muted"), (short, "$reading")))

    def action_budget(self, step: int) -> None:
        self._budget.action_turn(step)

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        self.dismiss(BreakChoice(str(event.target), self._budget.value))

    def on_key(self, event: events.Key) -> None:
        digit = event.character or ""
        if digit in "123456789"[: len(self._breaks)] and digit:
            event.stop()
            self.dismiss(BreakChoice(self._breaks[int(digit) - 1].name, self._budget.value))
