"""What a paper's claims can do without: found without importing the plugin here, chosen, and run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from readtrack.breaks import distinct, known
from readtrack.claims import Break
from readtrack.plugins.check import examine

if TYPE_CHECKING:
    from readtrack.tui.app import ReadtrackApp
    from readtrack.tui.screens.choose_break import Chosen


class Breaks:
    """Asks for a paper's breaks one at a time; `choose` is for the app's own thread."""

    def __init__(self, app: ReadtrackApp) -> None:
        self._app = app
        self._asked = ""  # the paper whose breaks are being looked for

    def choose(self, paper: str) -> None:
        if self._asked:
            self._app.notify_status(f"Still reading the breaks of {self._asked}.")
            return
        self._asked = paper
        # No worker of the app: its end would wait for the child process.
        threading.Thread(target=self._work, args=(paper,), daemon=True).start()

    def _work(self, paper: str) -> None:
        library, reason = self._app.library, ""
        found: tuple[Break, ...] = ()
        try:
            found = known(library, paper)
            if not found:
                self._tell(self._app.notify_status, f"Reading the breaks of {paper} takes a few seconds.")
                inspection = examine(paper, library.home)
                reason = inspection.reason or ""
                found = distinct(one for claim in inspection.claims for one in claim.breaks)
        except Exception as error:  # said to the reader: nobody looks at this thread
            reason = str(error)
        self._tell(self._offer, paper, found, reason)

    def _tell(self, call: Any, *arguments: Any) -> None:
        if self._app.is_running:
            self._app.call_from_thread(call, *arguments)

    def _offer(self, paper: str, found: tuple[Break, ...], reason: str) -> None:
        from readtrack.tui.screens.choose_break import ChooseBreak

        app, self._asked = self._app, ""
        if reason:
            app.notify_error(
                f"read the breaks of {paper}", reason, f"run `readtrack plugins check {paper}` for details."
            )
        elif not found:
            app.notify_status(f"The claims of {paper} have no breaks.")
        elif app.screen is not app.main or app.entry is None or app.entry.plugin != paper:
            return  # the reader has gone on meanwhile
        else:
            plain = app.main.plain_run(paper)
            budget = plain.budget if plain is not None else "quick"

            def chosen(answer: Chosen | None) -> None:
                if answer is not None:
                    app.run_broken(paper, answer.name, answer.budget)

            app.push_screen(ChooseBreak(paper, found, budget), chosen)
