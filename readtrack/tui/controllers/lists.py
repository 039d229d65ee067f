"""A list that comes in, and the rows of the list that is there: what each of them means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.library import Library
from readtrack.text import counted

if TYPE_CHECKING:
    from readtrack.reading_list.catalog import Row
    from readtrack.transfer.importing import Choices, Plan
    from readtrack.transfer.incoming import Incoming
    from readtrack.tui.app import ReadtrackApp
    from readtrack.tui.screens.choose_paper import Chosen

_NEXT = "fix it and import again. Nothing was written."


class Lists:
    """All methods are for the app's own thread; a list is read and written in another."""

    def __init__(self, app: ReadtrackApp) -> None:
        self._app = app

    def ask(self) -> None:
        """Ask for the list to import."""
        from readtrack.tui.screens.import_list import ListDialog

        self._app.push_screen(ListDialog(), self._look_at)

    def _look_at(self, came: Incoming | None) -> None:
        if came is None:
            return
        self._app.notify_status("Reading ", (came.name, "$link"), " …")

        def work() -> None:
            from readtrack.transfer.importing import plan

            try:
                made = plan(self._own_library(), came)
            except ReadtrackError as error:
                self._app.call_from_thread(self._app.notify_error, f"import {came.name}", error, _NEXT)
            else:
                self._app.call_from_thread(self._show, made)

        self._app.in_background("read a list", work)

    def _own_library(self) -> Library:
        """A library for a thread: the app's is read meanwhile."""
        return Library.open(self._app.library.home, self._app.library.named_list)

    def _show(self, made: Plan) -> None:
        from readtrack.transfer.importing import target
        from readtrack.tui.screens.import_list import ImportScreen

        def decided(answer: tuple[Choices, bool] | None) -> None:
            if answer is None:
                self._app.notify_status("Nothing was imported.")
            else:
                self._write(made.incoming, *answer)

        self._app.push_screen(ImportScreen(made, target(self._app.library)), decided)

    def _write(self, came: Incoming, choices: Choices, pdfs: bool) -> None:
        def work() -> None:
            from readtrack.transfer.importing import apply, plan

            try:
                library = self._own_library()
                made = plan(library, came, choices)
                problems = apply(library, made, pdfs=pdfs) if made.changes(library) or pdfs else []
            except ReadtrackError as error:
                self._app.call_from_thread(self._app.notify_error, f"import {came.name}", error, _NEXT)
            else:
                self._app.call_from_thread(self._written, made, problems)

        self._app.in_background("import a list", work)

    def _written(self, made: Plan, problems: list[str]) -> None:
        self._app.action_reload()
        count = sum(one.status not in ("listed", "left out") for one in made.found)
        rows = counted(count, "row")
        self._app.notify_status(
            "Imported ",
            (rows, "bold"),
            " of ",
            (made.incoming.name, "$link"),
            ("   K links a row to a paper", "$muted"),
        )
        for problem in problems[:3]:
            self._app.notify_error("attach a PDF", problem, "press A to attach it yourself.")

    # Rows

    def ask_for_link(self) -> None:
        """Ask which paper the row under the cursor is."""
        from readtrack.transfer.linking import known_papers
        from readtrack.transfer.matching import Matcher
        from readtrack.tui.screens.choose_paper import ChoosePaper

        entry = self._app.entry
        if entry is None or entry.row is None:
            if entry is not None and entry.paper is not None:
                self._app.notify_status(f"{entry.paper.id} is not on your list. + puts it there.")
            else:
                self._app.notify_status("Choose a row of your list to link it to a paper.")
            return
        row = entry.row
        papers = known_papers(self._app.library)
        match = Matcher(papers).match(row.text)
        first = (*row.papers, *match.papers, *match.candidates)
        dialog = ChoosePaper(row.text, papers, tuple(dict.fromkeys(first)), linked=bool(row.papers))
        self._app.push_screen(dialog, lambda chosen: self._link(row, chosen))

    def _link(self, row: Row, chosen: Chosen | None) -> None:
        from readtrack.transfer import linking

        if chosen is None or chosen.papers == row.papers:
            return
        library = self._app.library
        try:
            if chosen.papers:
                linking.link(library, row, chosen.papers)
            else:
                linking.unlink(library, row)
        except ReadtrackError as error:
            self._app.notify_error("link the row", error, "run `readtrack doctor` to find the cause.")
            return
        self._app.action_reload()
        said = (
            f" is now linked to {chosen.papers[0]}." if chosen.papers else " is no longer linked to a paper."
        )
        self._app.notify_status((row.text, "bold"), said, ("   K changes it", "$muted"))
