"""A page over the screen, for lineage, reading statistics, the comparison of two runs, or a diff."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from readtrack.tui.actions import bound
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.widgets.line_view import Build, LineView
from readtrack.tui.widgets.targets import Subject


class Paged(Dialog[str | None]):
    """Returns the paper that the reader chose, or None on escape."""

    CSS_PATH: ClassVar = "paged.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", show=False),
        *(bound(action_id, "dismiss(None)") for action_id in ("lineage", "statistics")),
        bound("run_edits", "edits"),
    ]

    def __init__(
        self, title: str, build: Build, hint: str, *, wide: bool = False, edits: Build | None = None
    ) -> None:
        """edits: the diff, shown on a second page; without it, the key for the diff closes this page."""
        super().__init__(classes="-wide" if wide else None)
        self._edits = edits
        self._title = Static(title, classes="question", markup=False)
        self._page = LineView(build)
        self._hint = Static(hint, classes="hint", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield self._title
            yield self._page
            yield self._hint

    def on_mount(self) -> None:
        self._page.focus()

    def action_edits(self) -> None:
        if self._edits is None:
            self.dismiss(None)
        else:
            self.app.push_screen(Paged("Code from a to b", self._edits, "esc goes back", wide=True))

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        assert isinstance(event.target, Subject)
        self.dismiss(event.target.subject)
