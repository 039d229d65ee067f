"""A small editor for notes, used if $EDITOR is not set."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static, TextArea

from readtrack.tui.screens.dialog import Dialog


class NoteScreen(Dialog[str]):
    """Multi-line text dialog. Esc keeps the text as well."""

    CSS_PATH: ClassVar = "note.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+s", "keep", "Save and close", priority=True, show=False)
    ]

    def __init__(self, title: str, note: str) -> None:
        super().__init__()
        self._title = title
        self._area = TextArea(note, soft_wrap=True, tab_behavior="indent")

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._title, classes="question", markup=False)
            yield self._area
            yield Static("Markdown. esc saves and closes, ctrl+z undoes.", classes="hint", markup=False)

    def on_mount(self) -> None:
        self._area.focus()
        self._area.move_cursor(self._area.document.end)

    def action_keep(self) -> None:
        self.dismiss(self._area.text)
