"""The help screen: all keys with the equivalent commands, the marks, and the terms of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from readtrack import signs
from readtrack.present import marks
from readtrack.present.actions import by_group, key
from readtrack.present.words import WORDS
from readtrack.tui.actions import bound
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.theme import state_style, verdict_mark
from readtrack.tui.widgets.line_view import BLANK, Line, LineView, join, text, wrapped


class Help(Dialog[None]):
    CSS_PATH: ClassVar = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", show=False),
        bound("help", "dismiss(None)"),
    ]

    def __init__(self, *, words_first: bool = False, first: Sequence[Line] = ()) -> None:
        """words_first: whether to begin with the terms, for a reader who looks at claims or benchmarks.
        first: lines that go before all others.
        """
        super().__init__()
        self._words_first = words_first
        self._first = list(first)
        self._page = LineView(self._lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Help", classes="question", markup=False)
            yield self._page
            yield Static(
                f"{key('down')} {key('up')} scroll, esc closes, {key('palette')} finds any action by name",
                classes="hint",
                markup=False,
            )

    def on_mount(self) -> None:
        self._page.focus()

    def _lines(self, width: int) -> list[Line]:
        keys, words = help_lines(width), word_lines(width)
        return self._first + ([*words, BLANK, *keys] if self._words_first else [*keys, BLANK, *words])


def word_lines(width: int) -> list[Line]:
    lines = [Line(text("Words", "bold $link"))]
    return [*lines, *told(WORDS, width)]


def told(words: Mapping[str, str], width: int) -> list[Line]:
    """Lines with a term and its meaning next to it."""
    lines: list[Line] = []
    for word, meaning in words.items():
        first, *more = wrapped(meaning, width - 19)
        lines.append(Line(join(text(word, "bold").pad_right(max(1, 18 - len(word))), " ", first.content)))
        lines += [Line(line.content.pad_left(19)) for line in more]
    return lines


def help_lines(width: int) -> list[Line]:
    lines: list[Line] = []
    for group, actions in by_group():
        lines += ([BLANK] if lines else []) + [Line(text(group, "bold $link"))]
        for action in actions:
            keys = text(action.shown_keys, "bold").pad_right(max(1, 14 - len(action.shown_keys)))
            cli_command = join("  ", (action.cli_command, "$muted")) if action.cli_command else ""
            first, *more = wrapped(join(action.help, cli_command), width - 15)
            lines.append(Line(join(keys, " ", first.content)))
            lines += [Line(line.content.pad_left(15)) for line in more]
    return [*lines, BLANK, *_marks(width)]


def _marks(width: int) -> list[Line]:
    states = [join((mark, state_style(state)), f" {state}   ") for state, mark in marks.STATES.items()]
    verdicts = [join(verdict_mark(name), f" {name}   ") for name in marks.VERDICTS]
    others = [
        join((marks.RUNNABLE, "$muted"), " can be run   "),
        join((signs.ERROR, "$bad"), " the last run failed   "),
        join((signs.FOLDED, "$muted"), " folded"),
    ]
    lines = [Line(text("Marks", "bold $link"))]
    for row in (states, verdicts, others):
        lines += wrapped(join(*row), width)
    lines += wrapped("READTRACK_ASCII=1 draws everything in plain ASCII.", width, "$muted")
    return lines
