"""Prints the checklist tree. `readtrack list` calls it without typer, whose import takes longer than the
command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.terminal import pad, paint, print_out
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.present import marks, wording
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.reading_list.catalog import Note, Paper, Row, Section

State = Literal["todo", "reading", "read", "implemented", "skipped"]
STATE_STYLE: dict[str, terminal.Style] = {
    "reading": "yellow",
    "read": "green",
    "implemented": "cyan",
    "skipped": "dim",
}
_ALIGNED = 80  # columns of a row's text in a pipe; longer text pushes the rest to the right


class _Line(NamedTuple):
    """A shown row or line of prose. `subjects` are the row's papers that match the request."""

    section: Section
    depth: int
    item: Row | Note
    subjects: tuple[str, ...]


def show(
    words: Sequence[str] = (),
    *,
    state: State | None = None,
    section: str | None = None,
    runnable: bool = False,
    as_json: bool = False,
) -> None:
    """Print the matching rows; the parameters are the options of `readtrack list`."""
    library = open_library()
    wanted = _wanted(library, words, state, runnable)
    lines = list(_lines(library, wanted, section))
    if as_json:
        terminal.print_json([_json(library, line) for line in lines if line.subjects])
        return
    if not lines:
        from readtrack.fulltext.searching import doubt
        from readtrack.reading_list.catalog import Row

        if not any(isinstance(item, Row) for _, item in library.catalog.walk()):
            raise NotAvailableError(
                "your list is empty. `readtrack add` puts a paper on it, and `readtrack import` a whole list."
            )
        why = doubt(library, " ".join(words)) if words else ""
        raise NotAvailableError(why or "no row of the checklist matches. `readtrack list` shows them all.")
    if wanted is None and section is None:
        _print_heading(library.catalog.title, library.catalog.note)
    _print_rows(library, lines)
    if terminal.on_terminal():
        _tell_the_marks(any(s in library.runnable() for line in lines for s in line.subjects))


def _tell_the_marks(runnable: bool) -> None:
    said = "   ".join(f"{sign} {state}" for state, sign in marks.STATES.items())
    for line in ("", *terminal.wrap(said, terminal.width())):
        terminal.print_err(line)
    if runnable:
        terminal.print_err("* can be run: readtrack run ID")


def _wanted(library: Library, words: Sequence[str], state: str | None, runnable: bool) -> set[str] | None:
    """The requested subjects (paper ids, or `row:<key>` for rows without papers); None for all."""
    if not words and state is None and not runnable:
        return None
    wanted = {subject for line in _lines(library, None, None) for subject in line.subjects}
    if words:
        wanted &= _found(library, " ".join(words))
    if runnable:
        wanted &= set(library.runnable())
    return wanted if state is None else {s for s in wanted if library.state(s) == state}


def _found(library: Library, text: str) -> set[str]:
    """The matches of a `readtrack search` query. PDFs that are not indexed yet are not read."""
    from readtrack.fulltext.index import FullText
    from readtrack.fulltext.searching import Search

    return set(Search(library, FullText(library.home), text).found)


def _lines(library: Library, wanted: set[str] | None, heading: str | None) -> Iterator[_Line]:
    sections = library.catalog.sections
    if heading is not None:
        sections = tuple(s for s in sections if heading.casefold() in s.title.casefold())
        if not sections:
            names = ", ".join(one_line(s.title) for s in library.catalog.sections)
            raise ReadtrackError(f"no section has {heading!r} in its heading. The sections are {names}.")
    for section in sections:
        for item in section.rows:
            yield from _below(section, item, 0, wanted)


def _below(section: Section, item: Row | Note, depth: int, wanted: set[str] | None) -> Iterator[_Line]:
    """Lines for `item` and the items nested under it, without branches that contain no wanted subject."""
    from readtrack.reading_list.catalog import Note

    if isinstance(item, Note):
        if wanted is None:
            yield _Line(section, depth, item, ())
        return
    subjects: tuple[str, ...] = item.papers or (item.subject,)
    if wanted is not None:
        subjects = tuple(subject for subject in subjects if subject in wanted)
    nested = [line for row in item.rows for line in _below(section, row, depth + 1, wanted)]
    if subjects or nested:
        yield _Line(section, depth, item, subjects)
        yield from nested


def _json(library: Library, line: _Line) -> dict[str, Any]:
    from readtrack.reading_list.catalog import Row

    row = line.item
    assert isinstance(row, Row)
    return {
        "section": line.section.title,
        "depth": line.depth,
        "text": row.text,
        "key": row.key,
        "state": library.row_state(row),
        "papers": [
            _paper_json(library, library.catalog.papers[subject])
            for subject in line.subjects
            if subject in library.catalog.papers
        ],
    }


def _paper_json(library: Library, paper: Paper) -> dict[str, Any]:
    return {
        "id": paper.id,
        "title": paper.title,
        "authors": list(paper.authors),
        "year": paper.year or None,
        "arxiv": paper.arxiv_id,
        "url": paper.link or None,
        "builds_on": list(paper.builds_on),
        "state": library.state(paper.id),
        "since": library.since(paper.id),
        "tags": sorted(library.tags(paper.id)),
        "rating": library.rating(paper.id),
        "runnable": paper.id in library.runnable(),
    }


def _print_heading(title: str, note: str) -> None:
    print_out(paint(one_line(_shown(title)), "bold"))
    for piece in terminal.paragraphs(_shown(note)):
        print_out(paint(piece, "dim"))
    print_out()


class _Cells(NamedTuple):
    """The shown parts of a line; prose has no box.

    box    a tick box, or on a terminal the mark of the state
    word   the state in its own column, if the box does not show it
    style  the colour of the state
    """

    section: Section
    box: str
    text: str
    word: str
    ids: str
    style: terminal.Style | None = None


def _print_rows(library: Library, lines: list[_Line]) -> None:
    """Print columns: the row's text, its state unless a mark shows it, and the ids of its papers."""
    shown = [_cells(library, line) for line in lines]
    rows = [cells for cells in shown if cells.box] or shown
    room = max(terminal.cells(cells.box + cells.text) for cells in rows)
    word_room = max(len(cells.word) for cells in rows)
    ids_room = max(terminal.cells(cells.ids) for cells in rows)
    total = terminal.width()
    if total is None:
        room = min(room, _ALIGNED)
    else:
        ids_room = min(ids_room, max(24, total // 3))
        room = min(room, total - word_room - ids_room - (4 if word_room else 2))
    for index, (section, group) in enumerate(groupby(shown, key=lambda cells: cells.section)):
        if index:
            print_out()
        print_out(paint(one_line(section.title), "bold"))
        for piece in terminal.paragraphs(_shown(section.note)):
            print_out(paint(piece, "dim"))
        for cells in group:
            _print_cells(cells, room, word_room, ids_room)


def _cells(library: Library, line: _Line) -> _Cells:
    from readtrack.reading_list.catalog import Row

    indent, row = "  " * line.depth, line.item
    if not isinstance(row, Row):
        text = one_line(_shown(row.text))
        return _Cells(line.section, "", indent + text, "", "")
    state = library.row_state(row)
    papers = [library.catalog.papers[s] for s in line.subjects if s in library.catalog.papers]
    ids = [f"{paper.id}*" if paper.id in library.runnable() else paper.id for paper in papers]
    text = one_line(_shown(row.text, papers[0] if len(row.papers) == len(papers) == 1 else None))
    if terminal.on_terminal():
        box, word = marks.STATES[state], ""
    else:
        box, word = _box(library, row, state), "" if state == "todo" else state
    return _Cells(line.section, f"{indent}{box} ", text, word, " ".join(ids), STATE_STYLE.get(state))


def _shown(text: str, paper: Paper | None = None) -> str:
    """The row's text: rendered as in the app on a terminal, unchanged in a pipe."""
    return wording.words(text, paper) if terminal.on_terminal() else text


def _print_cells(cells: _Cells, room: int, word_room: int, ids_room: int) -> None:
    if not cells.box:
        for piece in terminal.paragraphs(cells.text):
            print_out(paint(piece, "dim"))
        return
    texts = terminal.wrap(cells.text, room - len(cells.box) if terminal.width() else None)
    styles = (cells.style,) if cells.style else ()
    box, word = cells.box, cells.word
    for text, ids in zip_longest(texts, terminal.wrap(cells.ids, ids_room), fillvalue=""):
        left = paint(box, *styles) + pad(text, room - len(box))
        middle = f"  {paint(pad(word, word_room), *styles)}" if word_room else ""
        print_out(f"{left}{middle}  {paint(ids, 'cyan')}".rstrip())
        box, word, styles = " " * len(box), "", ()


def _box(library: Library, row: Row, state: str) -> str:
    """The tick of the list, unless the journal has a newer state."""
    if state == "reading":
        return "[x]" if row.done and library.is_readers else "[ ]"
    return {"todo": "[ ]", "skipped": "[-]"}.get(state, "[x]")
