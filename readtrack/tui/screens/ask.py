"""Small dialogs: a question with a few answers, and a line of text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from readtrack.errors import ReadtrackError
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.widgets.line_view import Line, LineView, join, text

_PAUSE = 0.7  # seconds


class Choice(NamedTuple):
    """An answer: the `key` that chooses it, and `help`, which describes its effect."""

    key: str
    label: str
    help: str = ""


class ChoiceDialog(Dialog[str | None]):
    """Returns the key of the chosen answer, or None on escape.

    unasked  the app opened the dialog by itself, so the reader may be typing something else. Keys count as
             answers only after `_PAUSE` seconds without a key
    """

    CSS_PATH: ClassVar = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def __init__(self, question: str, answers: list[Choice], *, unasked: bool = False) -> None:
        super().__init__()
        self._unasked = unasked
        self._last_key = time.monotonic()
        self._question = question
        self._answers = answers
        self._page = LineView(self._lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._question, classes="question", markup=False)
            self._page.styles.height = len(self._answers)
            yield self._page
            yield Static("enter picks, esc goes back", classes="hint", markup=False)

    def on_mount(self) -> None:
        self._page.focus()
        self.call_after_refresh(self._painted)

    def _painted(self) -> None:
        self._last_key = time.monotonic()
        self._page.go_to(self._answers[0].key)

    def _lines(self, width: int) -> list[Line]:
        room = max(len(answer.label) for answer in self._answers)
        return [
            Line(
                join(
                    " ",
                    (answer.key, "bold $link"),
                    "  ",
                    text(answer.label).pad_right(room - len(answer.label)),
                    "  ",
                    (answer.help, "$muted"),
                ),
                answer.key,
            )
            for answer in self._answers
        ]

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        self.dismiss(str(event.target))

    async def on_event(self, event: events.Event) -> None:
        if self._unasked and isinstance(event, events.Key):
            typing = event.time - self._last_key < _PAUSE
            self._last_key = event.time
            if typing:
                return
        await super().on_event(event)

    def on_key(self, event: events.Key) -> None:
        if event.character and any(answer.key == event.character for answer in self._answers):
            event.stop()
            self.dismiss(event.character)


class _Completing(Input):
    """An input in which tab accepts the suggestion, like the right arrow."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "complete", show=False)]

    def action_complete(self) -> None:
        self.cursor_position = len(self.value)
        self.action_cursor_right()


class InputDialog(Dialog[None]):
    """Passes the typed line to `take`. If `take` raises an error, the dialog shows it and keeps the line."""

    CSS_PATH: ClassVar = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def __init__(
        self,
        question: str,
        hint: str,
        take: Callable[[str], None],
        value: str = "",
        *,
        suggestions: Iterable[str] = (),
        selected: bool = False,
    ) -> None:
        """suggestions: lines that tab can complete to; selected: whether typing replaces `value`."""
        super().__init__()
        self._question = question
        self._take = take
        self._hint = Static(text(hint), classes="hint", markup=False)
        suggester = SuggestFromList(suggestions, case_sensitive=False)
        self._input = _Completing(value, select_on_focus=selected, suggester=suggester)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._question, classes="question", markup=False)
            yield self._input
            yield self._hint

    def on_mount(self) -> None:
        self._input.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            self._take(event.value)
        except ReadtrackError as error:
            self._hint.update(text(str(error), "$bad"))
        else:
            self.dismiss(None)
