"""Changes a paper's state, tags and rating, with undo and redo."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from readtrack import signs
from readtrack.errors import ReadtrackError
from readtrack.present import marks, wording
from readtrack.present.actions import key
from readtrack.reading_list.catalog import Row
from readtrack.tui import news
from readtrack.tui.theme import state_style

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.reading_list.journal import State
    from readtrack.transfer.list_history import Undone
    from readtrack.tui.shell import Shell


class ReadingController:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def look(self) -> None:
        """Show marks set by another app or a command."""
        if self._shell.library.read_journal_again():
            self._shell.post(news.ReadingChanged())

    def subject(self, doing: str) -> str | None:
        """The selected subject. If there is none, show the reason and return None."""
        entry = self._shell.entry
        if entry is not None and entry.subject:
            return entry.subject
        self._shell.say(f"Choose one paper to {doing}. This row has several.")
        return None

    def mark(self, state: State) -> None:
        entry = self._shell.entry
        if entry is None or (not entry.subject and entry.row is None):
            plugin = entry.plugin if entry is not None else ""
            self._shell.say(
                f"{plugin} is a plugin without a paper, so it has no state."
                if plugin
                else "Choose a row or a paper. A section has no state."
            )
            return
        subjects = [entry.subject] if entry.subject else list(entry.row.papers if entry.row else ())
        if not self._write(f"mark it as {state}", lambda: self._shell.library.mark_all(subjects, state)):
            return
        name = entry.subject if entry.paper is not None else wording.words(entry.text)
        self._shell.say(
            (marks.STATES[state], state_style(state)),
            f" {name} marked as {state}.",
            (f"  {key('undo')} undoes", "$muted"),
        )

    def _write(self, what: str, change: Callable[[], object]) -> bool:
        """Change the journal, and return True. On an error, show the reason and return False."""
        try:
            change()
        except ReadtrackError as error:
            self._shell.fail(what, error, "run `readtrack doctor` to find the cause.")
            return False
        self._shell.post(news.ReadingChanged())
        return True

    def redo(self) -> None:
        from readtrack.transfer import list_history

        self._take("redo", list_history.redo)

    def undo(self) -> None:
        from readtrack.transfer import list_history

        self._take("undo", list_history.undo)

    def _take(self, what: str, change: Callable[[Library], Undone | None]) -> None:
        before = {row.key for row in self._rows()}
        taken: list[Undone | None] = []
        if not self._write(what, lambda: taken.append(change(self._shell.library))):
            return
        (done,) = taken
        if done is not None and done.of_list:
            self._shell.reload()
            returned = next((row.key for row in self._rows() if row.key not in before), None)
            if returned is not None:
                self._shell.post(news.RowReturned(returned))
        self._shell.say(done.said if done is not None else f"There is nothing to {what}.")

    def _rows(self) -> list[Row]:
        return [item for _, item in self._shell.library.catalog.walk() if isinstance(item, Row)]

    def ask_for_tags(self) -> None:
        from readtrack.tui.screens.ask import InputDialog

        subject = self.subject("tag it")
        if subject is None:
            return

        def edited(line: str) -> None:
            words = re.split(r"[\s,;]+", line.casefold())
            self._set_tags(subject, {tag for word in words if (tag := word.removeprefix("#"))})

        hint = "Separate tags with spaces or commas. enter saves, esc goes back."
        before = "".join(
            f"{tag} " for tag in sorted(self._shell.library.tags(subject))
        )  # ends with a space, so that the reader can type another tag
        self._shell.ask(InputDialog(f"Tags of {subject}", hint, edited, before))

    def _set_tags(self, subject: str, after: set[str]) -> None:
        before = self._shell.library.tags(subject)
        self._shell.library.change_tags(subject, add=after, remove=before - after)
        self._shell.post(news.ReadingChanged())
        tags = ", ".join(sorted(after)) or "no tags"
        self._shell.say((subject, "bold"), f": {tags}", (f"  {key('undo')} undoes", "$muted"))

    def ask_for_rating(self) -> None:
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        subject = self.subject("rate it")
        if subject is None:
            return

        def rated(stars: str | None) -> None:
            if stars is None:
                return
            count = int(stars)
            if self._write("rate it", lambda: self._shell.library.rate(subject, count or None)):
                said = signs.stars(count) if count else "no rating"
                self._shell.say((subject, "bold"), f": {said}", (f"  {key('undo')} undoes", "$muted"))

        answers = [Choice(str(count), signs.stars(count)) for count in range(5, 0, -1)]
        self._shell.ask(ChoiceDialog(f"Rate {subject}", [*answers, Choice("0", "no rating")]), rated)
