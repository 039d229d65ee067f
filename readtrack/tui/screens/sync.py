"""The current or last sync: the state of each paper, with the reason for each failure."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from readtrack.present.actions import key
from readtrack.tui import news
from readtrack.tui.actions import bound
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.sync_task import Syncing
from readtrack.tui.widgets import sync_page
from readtrack.tui.widgets.line_view import Line, LineView
from readtrack.tui.widgets.targets import Subject


class SyncScreen(Dialog[str | None]):
    """Returns the paper to show, or None on escape. Closing the page does not stop the sync."""

    CSS_PATH: ClassVar = "sync.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", show=False),
        *(bound(action_id, "dismiss(None)") for action_id in ("sync", "sync_all", "sync_page")),
        bound("cancel", "app.cancel_sync"),
    ]

    def __init__(self, syncing: Syncing) -> None:
        super().__init__()
        self.syncing = syncing
        # Created here, because keys and messages may arrive before the widgets are composed.
        self._page = LineView(self._lines)
        self._hint = Static(classes="hint", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(sync_page.title(self.syncing), classes="question", markup=False)
            yield self._page
            yield self._hint

    def on_mount(self) -> None:
        self._page.focus()
        self.refresh_sync()

    @on(news.SyncChanged)
    def refresh_sync(self) -> None:
        self._page.rebuild()
        stop = f"{key('cancel')} stops it, "
        words = "esc closes (the sync continues)" if not self.syncing.ended else "esc closes"
        hint = f"{'' if self.syncing.ended else stop}enter shows the paper, {words}"
        self._hint.update(hint, layout=False)

    def _lines(self, width: int) -> list[Line]:
        return sync_page.page(self.syncing, width)

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        assert isinstance(event.target, Subject)
        self.dismiss(event.target.subject)
