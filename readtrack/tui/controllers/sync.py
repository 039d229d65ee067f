"""Starts, shows and stops syncs, and reports how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from readtrack.present.actions import key
from readtrack.tui import news

if TYPE_CHECKING:
    from readtrack.tui.controllers.search import SearchController
    from readtrack.tui.screens.sync import SyncScreen
    from readtrack.tui.shell import Shell
    from readtrack.tui.sync_task import Syncing

_LOOK_EVERY = 0.2  # seconds


class SyncController:
    """`last` is the current or last sync. Call all methods in the app's thread."""

    def __init__(self, shell: Shell, search: SearchController) -> None:
        self._shell = shell
        self._search = search
        self._page: SyncScreen | None = None
        self.last: Syncing | None = None

    @property
    def alive(self) -> Syncing | None:
        return None if self.last is None or self.last.ended else self.last

    def start(self, papers: Sequence[str], otherwise: str) -> None:
        """Fetch missing files of `papers`, or show `otherwise` if there are none.

        If a sync is already running, show it instead of starting another.
        """
        from readtrack.tui.sync_task import Syncing

        if self.alive is not None:
            self.show()
        elif not papers:
            self._shell.say(otherwise)
        else:
            self.last = Syncing(self._shell.library, papers)
            self._shell.run_worker(self.last.work, thread=True, group="sync", exit_on_error=False)
            self._shell.set_timer(_LOOK_EVERY, partial(self._look, self.last))
            self._shell.post(news.SyncChanged())

    def cancel(self) -> None:
        if self.alive is None:
            self._shell.say("Nothing is running.")
        else:
            self.alive.cancel()
            self._shell.post(news.SyncChanged())

    def leave(self) -> None:
        """Stop the sync with the app. The next sync continues from there."""
        if self.alive is not None:
            self.alive.cancel()

    def show(self) -> None:
        """Show the page of the last sync."""
        from readtrack.tui.screens.sync import SyncScreen

        if self.last is None:
            keys = f"Press {key('sync')} to fetch this paper, {key('sync_all')} for the whole list."
            self._shell.say(f"No sync has run yet. {keys}")
        elif self._page is None or not self._page.is_current:
            self._page = SyncScreen(self.last)
            self._shell.ask(self._page, self._chosen)

    def _chosen(self, paper: str | None) -> None:
        if paper is not None:
            self._shell.show_paper(paper)

    def _look(self, syncing: Syncing) -> None:
        if not self._shell.is_running:
            return  # its screens have already been closed
        moved = syncing.take()
        if moved:
            self._search.changed()
            self._shell.post(news.PapersChanged(moved))
        self._shell.post(news.SyncChanged())
        if syncing.ended:
            self._ended(syncing)
        else:
            self._shell.set_timer(_LOOK_EVERY, partial(self._look, syncing))

    def _ended(self, syncing: Syncing) -> None:
        from readtrack.sync.lock import AlreadyRunningError
        from readtrack.tui.widgets import sync_page

        shell, summary = self._shell, syncing.summary
        self._search.refresh()
        if isinstance(syncing.error, AlreadyRunningError):
            shell.fail("start a sync", syncing.error, f"press {key('reload')} to see what it has fetched.")
        elif summary is None:
            shell.fail("sync", syncing.error, "run `readtrack doctor` to find the cause.")
        else:
            missed = bool(summary.failed) and not summary.offline and not summary.cancelled
            more = f"{key('sync_page')} shows them" if missed else sync_page.ask_again(summary)
            shell.say((summary.headline, "bold"), (f"  {more}", "$muted"))
            if missed:
                shell.warn(sync_page.news(summary))
