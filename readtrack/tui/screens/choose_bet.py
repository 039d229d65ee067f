"""Dialog for a bet: the winning arm and a probability. It also shows the equivalent command."""

from __future__ import annotations

import shlex
from typing import ClassVar, NamedTuple

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from readtrack.bets import Stake
from readtrack.present import bets as present
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.screens.run_options import Selector
from readtrack.tui.widgets.line_view import BLANK, Line, LineView, join, wrapped

_WIDTH = 70  # columns of the page inside the dialog's frame
_PERCENT = (50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 99)
_USUAL = "75 %"


class BetChoice(NamedTuple):
    arm: str
    sure: int


class ChooseBet(Dialog[BetChoice | None]):
    """Returns the arm and the percentage, or None on escape."""

    CSS_PATH: ClassVar = "choose_bet.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", show=False),
        Binding("left,h", "sure(-1)", show=False),
        Binding("right,l", "sure(1)", show=False),
    ]

    def __init__(self, paper: str, on: Stake) -> None:
        super().__init__()
        self._paper, self._on = paper, on
        self._page = LineView(self._lines)
        self._page.styles.height = len(self._lines(_WIDTH))
        self._sure = Selector(tuple(f"{one} %" for one in _PERCENT), _USUAL, id="sure")
        self._sure.can_focus = False  # the page has the focus; left and right change the percentage
        self._command = Static(id="command", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(present.question(self._paper, self._on), classes="question", markup=False)
            yield self._page
            yield self._sure
            yield self._command
            yield Static(
                "enter: bet and run, ↑ ↓: choose arm, ← →: set confidence, esc: back",
                classes="hint",
                markup=False,
            )

    def on_mount(self) -> None:
        self._page.focus()
        self.call_after_refresh(self._page.go_to, self._on.ours)
        self._show_command()

    def _lines(self, width: int) -> list[Line]:
        """The claim's sentence, then each arm as a selectable line with its winning condition below."""
        lines = wrapped(self._on.sentence, width, "$muted", indent=1)
        for number, (arm, wins) in enumerate(present.options(self._on), 1):
            lines += [BLANK, Line(join(" ", (str(number), "bold $link"), "  ", (arm, "bold")), arm)]
            lines += wrapped(wins, width, "$muted", indent=4)
        return lines

    @property
    def _arm(self) -> str:
        return str(self._page.target or self._on.ours)

    @property
    def _percent(self) -> int:
        return int(self._sure.value.removesuffix(" %"))

    def on_line_view_moved(self) -> None:
        self._show_command()

    def on_selector_changed(self) -> None:
        self._show_command()

    def _show_command(self) -> None:
        words = ["readtrack", "run", self._paper, "--bet", f"{self._arm}:{self._percent}"]
        self._command.update(join(("$ ", "$faint"), (shlex.join(words), "$muted")))

    def action_sure(self, step: int) -> None:
        self._sure.action_turn(step)

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        self.dismiss(BetChoice(str(event.target), self._percent))

    def on_key(self, event: events.Key) -> None:
        arms = [arm for arm, _ in present.options(self._on)]
        if event.character in ("1", "2"):
            event.stop()
            self.dismiss(BetChoice(arms[int(event.character) - 1], self._percent))
