"""Adds papers, attaches PDFs and chooses the list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text
from readtrack.library import Library
from readtrack.present.actions import key
from readtrack.reading_list.catalog import CatalogError, Row
from readtrack.reading_list.insert import without_ticks
from readtrack.reading_list.load import load, shipped
from readtrack.text import counted
from readtrack.tui import kept, news

if TYPE_CHECKING:
    from readtrack.sync.add import Added
    from readtrack.tui.shell import Shell
    from readtrack.tui.widgets.outline import Entry

_KEPT = "your list is set aside; b brings it back"
_OFFERED = 9  # maximum number of lists to offer, one for each digit key
_EMPTY = 'title: "My papers"\nchecklist: []\npapers: {}\n'


class ListController:
    """Call all methods in the app's thread. Network requests run in another thread."""

    def __init__(self, shell: Shell, import_list: Callable[[], None]) -> None:
        self._shell = shell
        self._import_list = import_list

    def ask_for_paper(self) -> None:
        from readtrack.tui.screens.ask import InputDialog

        def take(line: str) -> None:
            from readtrack.sync.add import check_means_paper

            check_means_paper(self._shell.library, line)  # reports mistakes while the dialog is still open
            self._add(line.strip())

        hint = "A title (with a link if you have one), an arXiv id or a DOI. tab completes shipped papers."
        library = self._shell.library
        others = [paper for id_, paper in library.catalog.papers.items() if id_ not in library.listed]
        suggestions = [*(paper.id for paper in others), *(paper.title for paper in others)]
        self._shell.ask(InputDialog("Add a paper to your list", hint, take, suggestions=suggestions))

    def put_on_list(self, entry: Entry | None) -> None:
        """Put a shipped paper on the list. The cursor stays on the row, next to further papers to add."""
        if entry is None or entry.paper is None:
            self._shell.say("Choose a paper to put on your list.")
        elif not entry.off_list:
            self._shell.say(f"{entry.paper.id} is on your list already.")
        else:
            self._add(entry.paper.id, stay=True)

    def _add(self, what: str, *, stay: bool = False) -> None:
        self._shell.say("Adding ", (what, "$link"), " …")

        def work() -> None:
            from readtrack.sync.add import add
            from readtrack.transfer import list_history

            # This thread needs its own library, because the app reads the other one at the same time.
            library = Library.open(self._shell.library.home, self._shell.library.named_list)
            try:
                with list_history.recorded(library, f"{what} added to your list"):
                    added = add(library, what)
            except ReadtrackError as error:
                self._shell.call_from_thread(self._failed, what, error)
            else:
                self._shell.call_from_thread(self._added, added, stay)

        self._shell.in_background("add a paper", work)

    def _failed(self, what: str, error: ReadtrackError) -> None:
        from readtrack.sync.add import ListedError

        if isinstance(error, ListedError):
            self._shell.show_paper(error.paper)
            self._shell.say((error.paper, "bold"), " is on your list already.")
        else:
            self._shell.fail(f"add {what}", error, "check the id or the title, and try again.")

    def _added(self, added: Added, stay: bool) -> None:
        self._shell.reload()
        if not stay:
            self._shell.show_paper(added.paper)
        copied = "; your list is now a copy of the one shown" if added.copied else ""
        missing = f"; not known: {', '.join(added.missing)}" if added.missing else ""
        fetched = f"   {key('sync')} fetches {added.fetched}" if added.fetched else ""
        if added.linked:
            self._shell.say((added.paper, "bold"), " on your list now has the link ", (added.linked, "$link"))
            return
        self._shell.say("Added ", (added.paper, "bold"), copied, missing, (fetched, "$muted"))
        if added.unasked:
            self._shell.fail(
                f"fetch the details of {added.paper}", added.unasked, "the next sync fetches them."
            )

    def ask_for_pdf(self, paper: str) -> None:
        from readtrack.tui.screens.ask import InputDialog

        def take(line: str) -> None:
            from readtrack.sync.files import attach

            kept_as, before = attach(self._shell.library.home, paper, Path(line.strip()).expanduser())
            self._shell.post(news.PapersChanged([paper]))
            more = f"; the previous PDF is {before.name}" if before is not None else ""
            self._shell.say("The PDF of ", (paper, "bold"), f" is {kept_as.name} now{more}.")

        hint = "Enter the path to a PDF. It will be copied. enter attaches it, esc goes back."
        self._shell.ask(InputDialog(f"Attach a PDF to {paper}", hint, take))

    # The list

    def offer_list(self) -> None:
        """Ask a new user once which list to start with."""
        library = self._shell.library
        if library.shows_shipped_list and library.untouched and not kept.has_chosen(library.home):
            self.ask_for_list(unasked=True)

    def ask_for_list(self, *, unasked: bool = False) -> None:
        """Ask which list the reader wants. If their list is replaced, it is kept in set-aside."""
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        home, path = self._shell.library.home, self._shell.library.list_path
        if path != home.papers_yaml and self._shell.library.is_readers:
            self._shell.say(
                "Your list is ", (path, "$link"), f". Change it in any editor, then press {key('reload')}."
            )
            return
        mine, aside = home.papers_yaml.exists(), _set_aside(home)
        is_shipped = _is_shipped(path)
        whose = "the shipped one" if is_shipped else "the one in this folder"
        answers = [
            Choice("k", "keep my list", "nothing changes")
            if mine
            else Choice("k", "keep this list", f"{whose}; its ticks are ignored"),
            Choice("i", "import mine", "a BibTeX, Zotero or Markdown file"),
            Choice(
                "e",
                "start empty",
                _KEPT if mine else "shipped papers still run",
            ),
            Choice("s", "the shipped list", _KEPT)
            if mine
            else Choice("c", "copy this list", "yours to change, without the ticks"),
        ]
        if not (mine or is_shipped):
            answers.append(Choice("m", "it is mine", "copy it with its ticks"))
        if aside:
            one = f"one of {len(aside)} lists" if len(aside) > 1 else _described(aside[0])
            answers.append(Choice("b", "bring back", one))
        question = (
            f"Your list is {home.papers_yaml}"
            if mine
            else f"Which list do you want? Press {key('own_list')} to choose again later."
        )
        self._shell.ask(ChoiceDialog(question, answers, unasked=unasked), self._list_chosen)

    def _list_chosen(self, answer: str | None) -> None:
        kept.keep_chosen(self._shell.library.home)
        if answer == "e":
            self._change_list(_EMPTY)
        elif answer in ("c", "m"):
            self._copy_list(ticks=answer == "m")
        elif answer == "s":
            self._change_list(None)
        elif answer == "i":
            self._import_list()
        elif answer == "b":
            self._bring_back()

    def _copy_list(self, *, ticks: bool) -> None:
        """Copy the list on screen as the reader's own, with its ticks if `ticks`."""
        path = self._shell.library.list_path
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            self._shell.fail("copy the list", error.strerror, f"check the permissions of {path}.")
        else:
            self._change_list(text if ticks else without_ticks(text))

    def _bring_back(self) -> None:
        """Bring back a list from set-aside. If there are several, ask which one."""
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        aside = _set_aside(self._shell.library.home)[:_OFFERED]
        if len(aside) < 2:
            self._change_list(*aside)
            return
        answers = [Choice(str(number), _described(path)) for number, path in enumerate(aside, 1)]

        def chosen(answer: str | None) -> None:
            if answer is not None:
                self._change_list(aside[int(answer) - 1])

        self._shell.ask(ChoiceDialog("Which list do you want back?", answers), chosen)

    def _change_list(self, new: str | Path | None) -> None:
        """Replace the reader's list with a text or a file, or with the shipped list if None. The old list is
        set aside.
        """
        home = self._shell.library.home
        try:
            home.ensure()
            with home.holding("papers"):
                old = home.set_aside(home.papers_yaml) if home.papers_yaml.exists() else None
                if isinstance(new, Path):
                    new.rename(home.papers_yaml)
                elif new is not None:
                    write_text(home.papers_yaml, new)
        except (OSError, ReadtrackError) as error:
            self._shell.fail("make the list", error, "run `readtrack doctor` to find the cause.")
            return
        self._shell.reload()
        path = self._shell.library.list_path
        where = "the shipped one" if _is_shipped(path) else path
        if old is None:
            self._shell.say("Your list is ", (where, "$link"), (f"   {key('add')} adds a paper", "$muted"))
        else:
            back = (f"   {key('own_list')} b brings back the previous list", "$muted")
            self._shell.say("Your list is ", (where, "$link"), back)


def _is_shipped(path: Path) -> bool:
    """Whether this is the shipped list, or the list in a clone of readtrack."""
    return path == shipped() or (path.parent / "readtrack" / "__init__.py").is_file()


def _set_aside(home: Home) -> list[Path]:
    """The replaced lists, the most recently moved first (by the files' change times)."""
    found = (home.root / "set-aside").glob(f"{home.papers_yaml.stem}*{home.papers_yaml.suffix}")
    return sorted(found, key=lambda path: path.stat().st_ctime_ns, reverse=True)


def _described(path: Path) -> str:
    """A description such as `My papers, 13 rows, set aside on 2026-11-25`."""
    from datetime import datetime

    day = datetime.fromtimestamp(path.stat().st_ctime).date().isoformat()
    try:
        listed = load(path)
    except CatalogError:
        return f"{path.name}, cannot be read, set aside on {day}"
    rows = sum(isinstance(item, Row) for _, item in listed.walk())
    return f"{listed.title}, {counted(rows, 'row')}, set aside on {day}"
