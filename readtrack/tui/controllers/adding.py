"""What the reader brings: a paper for the list, a PDF of their own, a list of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.home import write_text
from readtrack.library import Library
from readtrack.reading_list.load import shipped

if TYPE_CHECKING:
    from readtrack.sync.add import Added
    from readtrack.tui.app import ReadtrackApp

_EMPTY = 'title: "My papers"\nchecklist: []\npapers: {}\n'


class Adding:
    """All methods are for the app's own thread; what asks the network works in another."""

    def __init__(self, app: ReadtrackApp) -> None:
        self._app = app

    def ask_for_paper(self) -> None:
        from readtrack.sync.add import parse_source
        from readtrack.tui.screens.ask import InputDialog

        def take(line: str) -> None:
            parse_source(line.strip())  # what cannot be one is said while the dialog is open
            self._add(line.strip())

        hint = "An arXiv id or link, or a DOI: its facts are fetched. enter adds, esc goes back."
        self._app.push_screen(InputDialog("Add a paper to your list", hint, take))

    def _add(self, what: str) -> None:
        self._app.notify_status("Asking for ", (what, "$link"), " …")

        def work() -> None:
            from readtrack.sync.add import add

            # A library of this thread's own: the app's is read meanwhile.
            library = Library.open(self._app.library.home, self._app.library.named_list)
            try:
                added = add(library, what)
            except ReadtrackError as error:
                self._app.call_from_thread(self._failed, what, error)
            else:
                self._app.call_from_thread(self._added, added)

        self._app.in_background("add a paper", work)

    def _failed(self, what: str, error: ReadtrackError) -> None:
        self._app.notify_error(f"add {what}", error, "`readtrack add --help` has what may be said by hand.")

    def _added(self, added: Added) -> None:
        self._app.action_reload()
        self._app.main.show_paper(added.paper)
        copied = "; this list is a copy of your own from now on" if added.copied else ""
        self._app.notify_status(("Added ", ""), (added.paper, "bold"), copied, ("   s fetches it", "$muted"))

    def ask_for_pdf(self, paper: str) -> None:
        from readtrack.tui.screens.ask import InputDialog

        def take(line: str) -> None:
            from readtrack.sync.files import attach

            kept, before = attach(self._app.library.home, paper, Path(line.strip()).expanduser())
            self._app.main.papers_changed([paper])
            more = f"; the one before is {before.name}" if before is not None else ""
            self._app.notify_status("The PDF of ", (paper, "bold"), f" is {kept.name} now{more}.")

        hint = "The path of a PDF: it is copied. enter attaches it, esc goes back."
        self._app.push_screen(InputDialog(f"Attach a PDF to {paper}", hint, take))

    def ask_for_list(self) -> None:
        """A reader who looks at the list that ships is offered one of their own."""
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        home = self._app.library.home
        if home.papers_yaml.exists():
            self._app.notify_status(
                "Your list is ", (home.papers_yaml, "$link"), ": change it in any editor, then ctrl+r."
            )
            return
        answers = [
            Choice("e", "an empty list", "a adds papers to it"),
            Choice("c", "a copy of this one", "yours to change"),
            Choice("i", "an import", "a file of BibTeX, Zotero or Markdown"),
            Choice("x", "none yet", "this one stays, and so do your marks"),
        ]
        makers: dict[str, Callable[[], str]] = {
            "e": lambda: _EMPTY,
            "c": lambda: self._app.library.list_path.read_text(encoding="utf-8"),
        }

        def chosen(answer: str | None) -> None:
            if answer in makers:
                self._make_list(makers[answer])
            elif answer == "i":
                self._app.action_import_list()

        self._app.push_screen(ChoiceDialog("Start a list of your own with", answers), chosen)

    def _make_list(self, text: Callable[[], str]) -> None:
        home = self._app.library.home
        try:
            home.ensure()
            write_text(home.papers_yaml, text())
        except (OSError, ReadtrackError) as error:
            self._app.notify_error("make the list", error, "run `readtrack doctor` to find the cause.")
            return
        self._app.action_reload()
        self._app.notify_status("Your list is ", (home.papers_yaml, "$link"), (": a adds a paper", "$muted"))


def looks_at_shipped(library: Library) -> bool:
    return library.list_path == shipped() and not library.home.papers_yaml.exists()
