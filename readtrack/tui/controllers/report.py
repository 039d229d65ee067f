"""Writes the report of the reader's home in a child process and opens it in the browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack import system
from readtrack.errors import ReadtrackError
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.tui.shell import Shell

_NEXT = "`readtrack report --output FOLDER` writes it elsewhere."


class ReportController:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._child: subprocess.Popen[str] | None = None
        self._left = False

    def write(self) -> None:
        """Write the report and open it in the browser, unless it is already being written."""
        if self._child is not None:
            self._shell.say("The report is still being written.")
            return
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "readtrack", "report"],
                env={**os.environ, "READTRACK_HOME": str(self._shell.library.home.root)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # so that Ctrl+C does not reach the child
            )
        except OSError as error:
            self._shell.fail("write the report", error.strerror, _NEXT)
            return
        self._shell.say("Writing the report …")
        child = self._child
        self._shell.in_background("write the report", lambda: self._wait(child))

    def leave(self) -> None:
        """Stop writing when the app ends. The report stays unfinished."""
        self._left = True
        if self._child is not None:
            self._child.kill()

    def _wait(self, child: subprocess.Popen[str]) -> None:
        try:
            page, said = child.communicate()
        finally:
            self._child = None
        if not self._left:
            self._shell.call_from_thread(self._ended, child.returncode, page.strip(), said)

    def _ended(self, code: int, page: str, said: str) -> None:
        lines = [one_line(line).removeprefix("readtrack: ") for line in said.splitlines() if line.strip()]
        if code or not page:
            why = ReadtrackError(lines[-1] if lines else f"it ended with exit code {code}")
            self._shell.fail("write the report", why, _NEXT)
        elif system.open_with_system(Path(page)):
            self._shell.say("Report written to ", (page, "$link"), ". Opening it …")
        else:
            self._shell.copy_to_clipboard(page)
            self._shell.say(
                "Report written. There is no desktop here, so its path was copied: ", (page, "$link"), "."
            )
