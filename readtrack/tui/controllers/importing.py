"""Imports lists, links rows to papers and removes rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.library import Library
from readtrack.present import wording
from readtrack.present.actions import key
from readtrack.text import counted, one_line

if TYPE_CHECKING:
    from readtrack.reading_list.catalog import Row
    from readtrack.transfer.importing import Choices, ImportPlan
    from readtrack.transfer.incoming import Incoming
    from readtrack.tui.screens.choose_paper import PaperChoice
    from readtrack.tui.shell import Shell

_NEXT = "fix it and import again. Nothing was written."


class ImportController:
    """Call all methods in the app's thread. Lists are read and written in another thread."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def ask(self) -> None:
        """Ask for the list to import."""
        from readtrack.tui.screens.import_list import ListDialog

        self._shell.ask(ListDialog(), self._look_at)

    def _look_at(self, came: Incoming | None) -> None:
        if came is None:
            return
        self._shell.say("Reading ", (came.name, "$link"), " …")

        def work() -> None:
            from readtrack.transfer.importing import plan

            try:
                made = plan(self._own_library(), came)
            except ReadtrackError as error:
                self._shell.call_from_thread(self._shell.fail, f"import {came.name}", error, _NEXT)
            else:
                self._shell.call_from_thread(self._show, made)

        self._shell.in_background("read a list", work)

    def _own_library(self) -> Library:
        """A separate library for a thread, because the app reads its own at the same time."""
        return Library.open(self._shell.library.home, self._shell.library.named_list)

    def _show(self, made: ImportPlan) -> None:
        from readtrack.transfer.importing import target
        from readtrack.tui.screens.import_list import ImportScreen

        def decided(answer: tuple[Choices, bool] | None) -> None:
            if answer is None:
                self._shell.say("Nothing was imported.")
            else:
                self._write(made.incoming, *answer)

        self._shell.ask(ImportScreen(made, target(self._shell.library)), decided)

    def _write(self, came: Incoming, choices: Choices, pdfs: bool) -> None:
        def work() -> None:
            from readtrack.transfer import list_history
            from readtrack.transfer.importing import apply, plan

            problems: list[str] = []
            try:
                library = self._own_library()
                made = plan(library, came, choices)
                if made.changes(library) or pdfs:
                    with list_history.recorded(library, f"{one_line(came.name)} imported"):
                        problems = apply(library, made, pdfs=pdfs)
            except ReadtrackError as error:
                self._shell.call_from_thread(self._shell.fail, f"import {came.name}", error, _NEXT)
            else:
                self._shell.call_from_thread(self._written, made, problems)

        self._shell.in_background("import a list", work)

    def _written(self, made: ImportPlan, problems: list[str]) -> None:
        self._shell.reload()
        rows = counted(made.kept, "row")
        unsure = sum(one.status == "ambiguous" for one in made.found)
        self._shell.say(
            "Imported ",
            (rows, "bold"),
            " of ",
            (made.incoming.name, "$link"),
            (f", {unsure} ambiguous" if unsure else "", "$reading"),
            (f"   {key('link')} links a row to a paper" if unsure else f"   {key('undo')} undoes", "$muted"),
        )
        for problem in problems[:3]:
            self._shell.fail("attach a PDF", problem, f"press {key('attach')} to attach it yourself.")

    # Rows

    def ask_for_link(self) -> None:
        """Ask which paper the selected row means."""
        from readtrack.transfer.linking import known_papers
        from readtrack.transfer.matching import Matcher
        from readtrack.tui.screens.choose_paper import ChoosePaper

        entry = self._shell.entry
        if entry is None or entry.row is None:
            if entry is not None and entry.paper is not None:
                self._shell.say(f"{entry.paper.id} is not on your list. {key('put_on_list')} puts it there.")
            else:
                self._shell.say("Choose a row of your list to link it to a paper.")
            return
        row = entry.row
        papers = known_papers(self._shell.library)
        match = Matcher(papers).match(row.text)
        means, maybe = row.papers or match.papers, (*match.papers, *match.candidates)
        dialog = ChoosePaper(_words(row), papers, means, maybe, new=True)
        self._shell.ask(dialog, lambda chosen: self._link(row, chosen))

    def _link(self, row: Row, chosen: PaperChoice | None) -> None:
        from readtrack.transfer import linking

        if chosen is None or (chosen.papers == row.papers and not chosen.new):
            return
        papers = chosen.papers[:1]
        said = f"is now linked to {papers[0]}" if papers else "is no longer linked to a paper"
        if chosen.new:
            said = "is now linked to a new paper"

        def change(library: Library) -> None:
            if chosen.new:
                linking.link_new(library, row, chosen.new)
            elif chosen.papers:
                linking.link(library, row, chosen.papers)
            else:
                linking.unlink(library, row)

        self._change(row, said, change)

    def ask_to_remove(self) -> None:
        """Ask whether to remove the selected row and the rows inside it."""
        from readtrack.transfer import linking
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        entry = self._shell.entry
        if entry is None or entry.row is None:
            self._shell.say("Choose a row of your list to remove it.")
            return
        row = entry.row
        inside = linking.inside(row)
        more = f" and {counted(inside, 'row')} inside it" if inside else ""

        def answered(answer: str | None) -> None:
            if answer == "y":
                self._change(row, "is removed from your list", lambda library: linking.remove(library, row))

        answers = [
            Choice("y", "remove", "states, notes and runs are kept"),
            Choice("x", "keep it"),
        ]
        question = f"Remove {_words(row)}{more} from your list?"
        self._shell.ask(ChoiceDialog(question, answers), answered)

    def _change(self, row: Row, said: str, change: Callable[[Library], None]) -> None:
        """Change the row in the list, with support for undo."""
        from readtrack.transfer import list_history

        library, words = self._shell.library, _words(row)
        try:
            with list_history.recorded(library, f"{words} {said.removeprefix('is ')}"):
                change(library)
        except ReadtrackError as error:
            self._shell.fail("change the row", error, "run `readtrack doctor` to find the cause.")
            return
        self._shell.reload()
        self._shell.say((words, "bold"), f" {said}.", (f"   {key('undo')} undoes", "$muted"))


def _words(row: Row) -> str:
    return one_line(wording.words(row.text))
