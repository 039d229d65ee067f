"""Edits notes and files, in the reader's editor if there is one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from readtrack import system
from readtrack.errors import ReadtrackError
from readtrack.present.actions import key
from readtrack.text import plain
from readtrack.tui import news
from readtrack.tui.suspension import suspended

if TYPE_CHECKING:
    from readtrack.tui.controllers.search import SearchController
    from readtrack.tui.shell import Shell


class NotesController:
    def __init__(self, shell: Shell, search: SearchController) -> None:
        self._shell = shell
        self._search = search

    def write(self, subject: str) -> None:
        command: list[str] = []
        try:
            command = system.editor()
        except ReadtrackError as error:
            self._shell.fail("start the editor", error, "fix EDITOR. A small editor opens instead.")
        if not command or not self._edit_outside(command, subject):
            self._edit_here(subject)

    def _edit_outside(self, command: list[str], subject: str) -> bool:
        from readtrack.notes import begin, settle

        path = self._shell.library.note_path(subject)
        try:
            self._shell.library.home.ensure(path.parent)
            begun = begin(self._shell.library, subject)
        except ReadtrackError as error:
            self._shell.fail("begin the note", error, "a small editor opens instead.")
            return False
        edited = self._run_editor([*command, str(path)])
        settle(self._shell.library, subject, begun)
        if not edited:
            return False
        self._saved(subject)
        return True

    def _saved(self, subject: str) -> None:
        self._search.changed()
        self._shell.post(news.ReadingChanged())
        path = self._shell.library.note_path(subject)
        if path.exists():
            self._shell.say("Saved the note on ", (subject, "bold"), ": ", (path, "$link"))
        else:
            self._shell.say("There is no note on ", (subject, "bold"), ".")

    def _run_editor(self, command: list[str]) -> bool:
        """Lend the terminal to an editor until it ends, and return whether the editor could be started."""
        try:
            with suspended(self._shell), subprocess.Popen(command) as editor:
                # Another thread may receive the signal of a closed terminal. Waiting without a timeout would
                # keep this thread from handling it.
                while (code := editor.poll()) is None:
                    time.sleep(0.05)
        except SuspendNotSupported:
            return False
        except OSError as error:
            self._shell.fail(f"start the editor {command[0]}", error, "set EDITOR to an installed editor.")
            return False
        if code:
            self._shell.fail(
                f"edit with {command[0]}", f"it ended with exit code {code}", f"see {command[-1]}"
            )
        return True

    def _edit_here(self, subject: str) -> None:
        from readtrack.notes import united
        from readtrack.tui.screens.note import NoteScreen

        try:
            before = plain(self._shell.library.note(subject))  # the editor would draw control sequences
        except ReadtrackError as error:
            self._shell.fail("open the note", error, "check the file's permissions.")
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
                self._shell.library.change_note(subject, keep_both)
            except ReadtrackError as error:
                self._shell.fail(
                    "save the note",
                    error,
                    f"press {key('note')} to open it again. Your text is on the clipboard.",
                )
                self._shell.copy_to_clipboard(note)
                return
            self._saved(subject)
            if changed:
                self._shell.say("Another program changed the note at the same time. It contains both texts.")

        self._shell.ask(NoteScreen(f"Note on {subject}", before), written)

    def edit_file(self, path: Path, line: int) -> None:
        """Open a file in the reader's editor, or in an installed one."""
        try:
            command = system.editor() or system.usual_editor()
        except ReadtrackError as error:
            self._shell.fail("start the editor", error, "fix EDITOR.")
            return
        if not command:
            self._shell.fail(
                "start an editor",
                "EDITOR is not set, and no editor was found",
                f"open {path} in your editor.",
            )
            return
        self._run_editor([*command, *system.at_line(command, line), str(path)])
