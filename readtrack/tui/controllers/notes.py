"""Text that the reader edits: a paper's note, and files; in their own editor where there is one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from readtrack import system
from readtrack.errors import ReadtrackError
from readtrack.text import plain
from readtrack.tui.suspension import suspended

if TYPE_CHECKING:
    from readtrack.tui.app import ReadtrackApp


class Notes:
    def __init__(self, app: ReadtrackApp) -> None:
        self._app = app

    def write(self, subject: str) -> None:
        command: list[str] = []
        try:
            command = system.editor()
        except ReadtrackError as error:
            self._app.notify_error("start the editor", error, "fix EDITOR. A small editor opens instead.")
        if not command or not self._edit_outside(command, subject):
            self._edit_here(subject)

    def _edit_outside(self, command: list[str], subject: str) -> bool:
        from readtrack.notes import begin, settle

        path = self._app.library.note_path(subject)
        try:
            self._app.library.home.ensure(path.parent)
            begun = begin(self._app.library, subject)
        except ReadtrackError as error:
            self._app.notify_error("begin the note", error, "a small editor opens instead.")
            return False
        edited = self._run_editor([*command, str(path)])
        settle(self._app.library, subject, begun)
        if not edited:
            return False
        self._app.finding.changed()
        self._app.main.refresh_all()
        return True

    def _run_editor(self, command: list[str]) -> bool:
        """Give the terminal to an editor until it ends; False if it could not be started."""
        try:
            with suspended(self._app), subprocess.Popen(command) as editor:
                # Any thread may take the signal that the terminal has closed, and a wait without an end
                # would keep this one from acting on it.
                while (code := editor.poll()) is None:
                    time.sleep(0.05)
        except SuspendNotSupported:
            return False
        except OSError as error:
            self._app.notify_error(
                f"start the editor {command[0]}", error, "set EDITOR to an installed editor."
            )
            return False
        if code:
            self._app.notify_error(
                f"edit with {command[0]}", f"it ended with exit code {code}", f"see {command[-1]}"
            )
        return True

    def _edit_here(self, subject: str) -> None:
        from readtrack.notes import united
        from readtrack.tui.screens.note import NoteScreen

        try:
            before = plain(self._app.library.note(subject))  # an editor draws what it is given
        except ReadtrackError as error:
            self._app.notify_error("open the note", error, "check the file's permissions.")
            return

        def written(note: str | None) -> None:
            if note is None or note == before:
                return
            changed = False

            def keep_both(now: str) -> str:
                nonlocal changed
                changed = plain(now) != before
                return united(before, note, plain(now))

            try:
                self._app.library.change_note(subject, keep_both)
            except ReadtrackError as error:
                self._app.notify_error(
                    "save the note", error, "press n to open it again. Your text is on the clipboard."
                )
                self._app.copy_to_clipboard(note)
            if changed:
                self._app.notify_status(
                    "Another program changed the note at the same time. It contains both texts."
                )
            self._app.finding.changed()
            self._app.main.refresh_all()

        self._app.push_screen(NoteScreen(f"Note on {subject}", before), written)

    def edit_file(self, path: Path, line: int) -> None:
        """Open a file in the reader's editor, or one that is there."""
        try:
            command = system.editor() or system.usual_editor()
        except ReadtrackError as error:
            self._app.notify_error("start the editor", error, "fix EDITOR.")
            return
        if not command:
            self._app.notify_error(
                "start an editor",
                "EDITOR is not set, and no editor was found",
                f"open {path} in your editor.",
            )
            return
        self._run_editor([*command, *system.at_line(command, line), str(path)])
