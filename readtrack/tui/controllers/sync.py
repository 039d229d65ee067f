"""What the reader does with syncs: starts one, watches it, stops it, and is told how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readtrack.tui.app import ReadtrackApp
    from readtrack.tui.sync_task import Syncing

_LOOK_EVERY = 0.2  # seconds


class Syncs:
    """`last` is the sync that runs or ran last; all methods are for the app's own thread."""

    def __init__(self, app: ReadtrackApp) -> None:
        self._app = app
        self.last: Syncing | None = None

    @property
    def alive(self) -> Syncing | None:
        return None if self.last is None or self.last.ended else self.last

    def start(self, papers: Sequence[str], otherwise: str) -> None:
        """Fetch what is missing of `papers`, or say `otherwise` if there are none.

        While a sync is alive it is shown, and no other started.
        """
        from readtrack.tui.sync_task import Syncing

        if self.alive is not None:
            self.show()
        elif not papers:
            self._app.notify_status(otherwise)
        else:
            self.last = Syncing(self._app.library, papers)
            self._app.run_worker(self.last.work, thread=True, group="sync", exit_on_error=False)
            self._app.set_timer(_LOOK_EVERY, partial(self._look, self.last))
            self._draw()

    def cancel(self) -> None:
        if self.alive is None:
            self._app.notify_status("Nothing is running.")
        else:
            self.alive.cancel()
            self._draw()

    def leave(self) -> None:
        """The app ends, and with it the sync; the next one goes on from there."""
        if self.alive is not None:
            self.alive.cancel()

    def show(self) -> None:
        """The page of the last sync."""
        from readtrack.tui.screens.sync import SyncScreen

        if self.last is None:
            self._app.notify_status("No sync has run yet. Press s to fetch this paper, S for the whole list.")
        elif not isinstance(self._app.screen, SyncScreen):
            self._app.push_screen(SyncScreen(self.last), self._chosen)

    def _chosen(self, paper: str | None) -> None:
        if paper is not None:
            self._app.main.show_paper(paper)

    def _look(self, syncing: Syncing) -> None:
        if not self._app.is_running:
            return  # its screens are gone already
        moved = syncing.take()
        if moved:
            self._app.finding.changed()
            self._app.main.papers_changed(moved)
        self._draw()
        if syncing.ended:
            self._ended(syncing)
        else:
            self._app.set_timer(_LOOK_EVERY, partial(self._look, syncing))

    def _draw(self) -> None:
        from readtrack.tui.screens.sync import SyncScreen

        self._app.main.refresh_sync()
        self._app.main.refresh_hints()
        for screen in self._app.screen_stack:
            if isinstance(screen, SyncScreen):
                screen.refresh_sync()

    def _ended(self, syncing: Syncing) -> None:
        from readtrack.sync.lock import AlreadyRunningError
        from readtrack.tui.widgets.sync_page import ask_again, news

        app, summary = self._app, syncing.summary
        app.finding.refresh()
        if isinstance(syncing.error, AlreadyRunningError):
            app.notify_error("start a sync", syncing.error, "press ctrl+r to see what it has fetched.")
        elif summary is None:
            app.notify_error("sync", syncing.error, "run `readtrack doctor` to find the cause.")
        else:
            missed = bool(summary.failed) and not summary.offline and not summary.cancelled
            more = "w shows them" if missed else ask_again(summary)
            app.notify_status((summary.headline, "bold"), (f"  {more}", "$muted"))
            if missed:
                app.notify(news(summary), severity="warning", timeout=15, markup=False)
