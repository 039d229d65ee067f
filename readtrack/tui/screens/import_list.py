"""Imports a list: the reader names a file or pastes text, checks the paper of each row, and writes the
list.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from readtrack.errors import ReadtrackError
from readtrack.present import wording
from readtrack.present.actions import key, shown_key, where
from readtrack.text import counted, one_line
from readtrack.transfer import incoming
from readtrack.transfer.importing import Choices, ImportPlan, ImportRow
from readtrack.tui.actions import bindings, bound
from readtrack.tui.screens.dialog import Answering, Dialog
from readtrack.tui.widgets.key_hints import key_hints
from readtrack.tui.widgets.line_view import BLANK, Line, LineView, join, text
from readtrack.tui.widgets.table import Cell, one_line_each

if TYPE_CHECKING:
    from readtrack.tui.shell import Shell

_LISTS = (".md", ".markdown", ".txt", ".bib", ".bibtex")
_OFFERED = 8  # maximum number of names shown below the path
_MEANS = 34  # columns
_SIGNS = {
    "matched": ("✓", "$good"),
    "new": ("+", "$good"),
    "linked": ("✓", "$good"),
    "ambiguous": ("?", "$reading"),
    "unknown": ("·", "$muted"),
    "duplicate": ("=", "$link"),
    "listed": ("=", "$muted"),
    "left out": ("✗", "$faint"),
}
_MEANINGS = {
    "matched": "The row means this paper. The reason is next to it.",
    "new": "A paper that readtrack does not know. The file's facts about it are kept.",
    "ambiguous": "The row may mean several papers. enter chooses one.",
    "unknown": "No known paper matches, and the row stays as it is. enter, or K later, links it to one.",
    "duplicate": "Another row means the same paper.",
    "listed": "It is already on your list.",
    "left out": "It is not imported.",
    "enter": "Choose the row's paper.",
}
_HELP_WIDTH = 60  # columns; fits the dialog on a screen of 80


# The file, or the text


def completions(written: str) -> list[str]:
    """The folders and lists whose path begins with the typed text."""
    head, slash, tail = written.rpartition("/")
    folder = Path(f"{head}/" if slash else ".").expanduser()
    try:
        names = sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name
            for entry in os.scandir(folder)
            if entry.name.startswith(tail) and (tail or not entry.name.startswith("."))
        )
    except OSError:
        return []
    return [head + slash + name for name in names if name.endswith(("/", *_LISTS))]


class _PathInput(Input):
    """An input for a path. Pasted text of several lines is taken as the list itself."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "complete", show=False)]

    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__(placeholder="~/notes/papers.md", select_on_focus=False)
        self._take = take

    def _on_paste(self, event: events.Paste) -> None:
        lines = event.text.replace("\r\n", "\n").replace("\r", "\n")  # terminals paste CR
        if "\n" in lines.strip():
            event.stop()
            event.prevent_default()
            self._take(lines)

    def action_complete(self) -> None:
        found = completions(self.value)
        if found:
            self.value = os.path.commonprefix(found)  # noqa: RUF071 (characters, as they are typed)
            self.cursor_position = len(self.value)


class ListDialog(Dialog[incoming.Incoming | None]):
    """Returns the named or pasted list, or None on escape."""

    CSS_PATH: ClassVar = "import_list.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._input = _PathInput(lambda pasted: self._take(lambda: incoming.pasted(pasted)))
        self._offered = Static(id="offered", markup=False)
        self._error = Static(classes="hint", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Import a list: Markdown or BibTeX (Zotero)", classes="question", markup=False)
            yield self._input
            yield self._offered
            yield self._error
            hint = (
                "Type a path, or paste the list itself. tab completes, enter shows the rows, esc goes back."
            )
            yield Static(hint, classes="hint", markup=False)

    def on_mount(self) -> None:
        self._error.display = False
        self._input.focus()
        self._offer()

    @on(Input.Changed)
    def _offer(self) -> None:
        found = [
            path.rstrip("/").rpartition("/")[2] + "/" * path.endswith("/")
            for path in completions(self._input.value)
        ]
        more = f"  and {len(found) - _OFFERED} more" if len(found) > _OFFERED else ""
        self._offered.update(text("  ".join(found[:_OFFERED]) + more, "$muted"))

    @on(Input.Submitted)
    def _named(self) -> None:
        self._take(lambda: incoming.read(Path(self._input.value.strip()).expanduser()))

    def _take(self, read: Callable[[], incoming.Incoming]) -> None:
        try:
            came = read()
        except ReadtrackError as error:
            self._error.display = True
            self._error.update(text(str(error), "$bad"))
        else:
            self.dismiss(came)


# Its rows


class ImportScreen(Answering[tuple[Choices, bool] | None]):
    """Returns the choices for the rows, and whether to attach the PDFs that the list names; None on escape.

    The screen writes nothing. Enter on a row opens a dialog to choose its paper.
    """

    CSS_PATH: ClassVar = "import_list.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("import"),
        bound("help", "help"),
        Binding("escape,q", "dismiss(None)", show=False),
    ]

    def __init__(self, made: ImportPlan, goes_to: Path) -> None:
        super().__init__()
        self._plan = made
        self._goes_to = goes_to
        self._papers: dict[int, tuple[str, ...]] = {}
        self._left_out: set[int] = set()
        self._pdfs = False
        self._head = Static(id="import-head", markup=False)
        self.list = LineView(self._lines, id="import-list")
        self._status = Static(id="import-status", markup=False)
        self._hints = Static(id="import-hints", markup=False)

    @property
    def shell(self) -> Shell:
        return cast("Shell", self.app)

    def compose(self) -> ComposeResult:
        yield self._head
        yield self.list
        yield self._status
        yield self._hints

    def on_mount(self) -> None:
        self.list.focus()
        unsure = (one.line for one in self._plan.found if one.status == "ambiguous")
        self.list.rebuild(target=next(unsure, self._plan.found[0].line))
        self._refresh_lines()

    def on_resize(self) -> None:
        self._refresh_lines()

    @property
    def row(self) -> ImportRow | None:
        """The row under the cursor."""
        return next((one for one in self._plan.found if one.line == self.list.target), None)

    def papers_of(self, row: ImportRow) -> tuple[str, ...]:
        return self._papers.get(row.line, row.papers)

    # Display

    def _status_of(self, row: ImportRow) -> str:
        if row.line in self._left_out:
            return "left out"
        chosen = self._papers.get(row.line)
        if chosen is None:
            return row.status
        return "matched" if chosen else "new" if self._plan.incoming.is_bibtex else "unknown"

    def _means(self, row: ImportRow) -> Content:
        papers, chosen = " ".join(self.papers_of(row)), row.line in self._papers
        if row.line in self._left_out:
            return text("left out", "$faint")
        if papers:
            how = "chosen" if chosen else {"duplicate": row.twin, "listed": "listed"}.get(row.status, row.how)
            return join((papers, "bold"), (f" {how}", "$muted"))
        if row.candidates and not chosen:
            return text(f"maybe {' or '.join(row.candidates)}", "$reading")
        return text("a new paper" if self._status_of(row) == "new" else "no paper", "$muted")

    def _lines(self, width: int) -> list[Line]:
        cells: list[list[Cell]] = []
        for row in self._plan.found:
            words = wording.words(one_line(row.text))
            faint = "$faint" if row.line in self._left_out else ""
            cells.append(
                [
                    join(_SIGNS[self._status_of(row)]),
                    text(row.line, "$muted"),
                    self._means(row).truncate(_MEANS, ellipsis=True),
                    text("  " * row.depth + words, faint),
                ]
            )
        head, *rows = one_line_each(("", "line", "means", "row"), cells, width)
        return [
            head,
            *(Line(line.content, row.line) for line, row in zip(rows, self._plan.found, strict=True)),
        ]

    def _refresh_lines(self) -> None:
        counts = Counter(self._status_of(row) for row in self._plan.found)
        # Each sign with its word, because nothing else on the screen explains the signs.
        summary = Content("  ").join(
            join(_SIGNS[status], (f" {count} {status}", "$muted")) for status, count in counts.items()
        )
        name = one_line(self._plan.incoming.name)
        self._head.update(join(("Import ", "bold $heading"), (name, "bold"), "   ", summary))
        pdfs = len(self._plan.pdfs)
        what = "writes the rows into your list" if self._plan.own else "makes these rows your list"
        status = join((f"{key('import_write')} {what}: ", "$muted"), (self._goes_to, "$link"))
        if pdfs:
            count = counted(pdfs, "PDF")
            offer = (
                f"{count} will be attached ({key('import_pdfs')} cancels this)"
                if self._pdfs
                else f"{key('import_pdfs')} attaches {count}"
            )
            status = join(status, "\n", (offer, "$muted"))
        self._status.update(status)
        self._hints.update(key_hints("import", self.size.width - 2, enter="choose paper"))

    def _changed(self) -> None:
        self.list.rebuild()
        self._refresh_lines()

    # Actions

    def action_help(self) -> None:
        from readtrack.tui.screens.help import Help, told

        keys = {shown_key(one.keys[0]): one.help for one in where("import")}
        first = [Line(text("Import", "bold $link")), *told({**_MEANINGS, **keys}, _HELP_WIDTH), BLANK]
        self.app.push_screen(Help(first=first))

    @on(LineView.Chosen)
    def _choose(self) -> None:
        row = self.row
        if row is None:
            return
        from readtrack.transfer.linking import known_papers
        from readtrack.tui.screens.choose_paper import ChoosePaper, PaperChoice

        def chosen(answer: PaperChoice | None) -> None:
            if answer is not None:
                self._papers[row.line] = answer.papers
                self._left_out.discard(row.line)
                self._changed()
                self._go_to_next_unsure(row.line)

        papers = known_papers(self.shell.library)
        words = wording.words(one_line(row.text))
        self.app.push_screen(ChoosePaper(words, papers, self.papers_of(row), row.candidates), chosen)

    def _go_to_next_unsure(self, line: int) -> None:
        """Move to the next unsure row below `line`, or from the top. Without one, the cursor stays."""
        unsure = [one.line for one in self._plan.found if self._status_of(one) == "ambiguous"]
        target = next((one for one in unsure if one > line), unsure[0] if unsure else None)
        if target is not None:
            self.list.rebuild(target=target)

    def action_import_row(self) -> None:
        """Set the row to no paper. A second press restores the match."""
        row = self.row
        if row is not None:
            if row.line in self._papers:
                del self._papers[row.line]
            else:
                self._papers[row.line] = ()
            self._changed()

    def action_import_skip(self) -> None:
        row = self.row
        if row is not None:
            self._left_out ^= {row.line}
            self._changed()
            self.list.action_down()

    def action_import_pdfs(self) -> None:
        if self._plan.pdfs:
            self._pdfs = not self._pdfs
            self.app.clear_notifications()
            listed = "\n".join(f"{paper}: {path}" for paper, path in self._plan.pdfs.items())
            if self._pdfs:
                self.notify(listed, title=f"Attached when you press {key('import_write')}", markup=False)
            self._refresh_lines()
        else:
            self._status.update(
                text("No PDFs to attach: those in the list are missing, or already in the library.")
            )

    def on_unmount(self) -> None:
        self.app.clear_notifications()  # the reader has decided about the PDFs

    def action_import_write(self) -> None:
        self.dismiss((Choices(dict(self._papers), frozenset(self._left_out)), self._pdfs))
