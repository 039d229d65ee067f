"""Offers the breaks of a paper's claims, read without importing the plugin into the app, and runs the chosen
one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from readtrack.breaks import distinct, known
from readtrack.claims import Break
from readtrack.plugins.check import examine

if TYPE_CHECKING:
    from readtrack.tui.shell import Shell


class BreakController:
    """Reads the breaks of one paper at a time. Call `choose` in the app's thread."""

    def __init__(self, shell: Shell, choose_one: Callable[[str, tuple[Break, ...]], None]) -> None:
        self._shell = shell
        self._choose_one = choose_one
        self._asked = ""  # the paper whose breaks are being read

    def choose(self, paper: str) -> None:
        if self._asked:
            self._shell.say(f"Still reading the breaks of {self._asked}.")
            return
        self._asked = paper
        # A plain thread instead of a worker of the app, because the app's exit would wait for the child
        # process.
        threading.Thread(target=self._work, args=(paper,), daemon=True).start()

    def _work(self, paper: str) -> None:
        library, reason = self._shell.library, ""
        found: tuple[Break, ...] = ()
        try:
            found = known(library, paper)
            if not found:
                self._tell(self._shell.say, f"Reading the breaks of {paper} takes a few seconds.")
                inspection = examine(paper, library.home)
                reason = inspection.reason or ""
                found = distinct(one for claim in inspection.claims for one in claim.breaks)
        except Exception as error:  # shown, because the thread's error would be lost
            reason = str(error)
        self._tell(self._offer, paper, found, reason)

    def _tell(self, call: Any, *arguments: Any) -> None:
        if self._shell.is_running:
            self._shell.call_from_thread(call, *arguments)

    def _offer(self, paper: str, found: tuple[Break, ...], reason: str) -> None:
        self._asked = ""
        if reason:
            self._shell.fail(
                f"read the breaks of {paper}", reason, f"run `readtrack plugins check {paper}` for details."
            )
        elif not found:
            self._shell.say(f"The claims of {paper} have no breaks.")
        else:
            self._choose_one(paper, found)
