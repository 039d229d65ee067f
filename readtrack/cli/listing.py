"""`readtrack list`: the checklist tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.terminal import pad, paint, say
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.catalog import Note, Row, Section
    from readtrack.library import Library

State = Literal["todo", "reading", "read", "implemented", "skipped"]
STATE_STYLE: dict[str, terminal.Style] = {
    "reading": "yellow",
    "read": "green",
    "implemented": "cyan",
    "skipped": "dim",
}
_ALIGNED = 80  # columns of a row's text in a pipe; a longer one pushes the rest to the right
_LINK = re.compile(r"\[([^\]]+)\]\(\S+?\)")

app = typer.Typer(rich_markup_mode=None)


class _Line(NamedTuple):
    """A row or a line of prose that is shown; `subjects`: which of the row's papers were asked for."""

    section: Section
    depth: int
    item: Row | Note
    subjects: tuple[str, ...]


@app.command("list")
def list_papers(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only rows that match all of these words.", show_default=False)
    ] = None,
    state: Annotated[State | None, typer.Option(help="Only papers in this state.")] = None,
    section: Annotated[str | None, typer.Option(help="Only sections with this text in the heading.")] = None,
    runnable: Annotated[bool, typer.Option("--runnable", help="Only papers that can be run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document: a list of rows.")] = False,
) -> None:
    """The checklist as its reader wrote it.

    A paper marked * can be run.
    """
    library = open_library()
    wanted = _wanted(library, words or [], state, runnable)
    lines = list(_lines(library, wanted, section))
    if as_json:
        terminal.say_json([_json(library, line) for line in lines if line.subjects])
        return
    if not lines:
        raise NotAvailableError("no row of the checklist matches. `readtrack list` shows them all.")
    if wanted is None and section is None:
        _print_heading(library.catalog.title, library.catalog.note)
    _print_rows(library, lines)
    if terminal.on_terminal() and any(s in library.runnable() for line in lines for s in line.subjects):
        terminal.tell("\n* can be run: readtrack run ID")


def _wanted(library: Library, words: list[str], state: str | None, runnable: bool) -> set[str] | None:
    """The subjects (paper ids; `row:<key>` for rows without papers) that were asked for; None for all."""
    if not words and state is None and not runnable:
        return None
    wanted = {subject for line in _lines(library, None, None) for subject in line.subjects}
    if words:
        wanted &= library.search(" ".join(words))
    if runnable:
        wanted &= set(library.runnable())
    return wanted if state is None else {s for s in wanted if library.state(s) == state}


def _lines(library: Library, wanted: set[str] | None, heading: str | None) -> Iterator[_Line]:
    sections = library.catalog.sections
    if heading is not None:
        sections = tuple(s for s in sections if heading.casefold() in s.title.casefold())
        if not sections:
            names = ", ".join(one_line(s.title) for s in library.catalog.sections)
            raise ReadtrackError(f"no section has {heading!r} in its heading. There are: {names}.")
    for section in sections:
        for item in section.rows:
            yield from _below(section, item, 0, wanted)


def _below(section: Section, item: Row | Note, depth: int, wanted: set[str] | None) -> Iterator[_Line]:
    """`item` and what is nested under it, as far as it, or something below it, is wanted."""
    from readtrack.catalog import Note

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
    from readtrack.catalog import Row

    row = line.item
    assert isinstance(row, Row)
    return {
        "section": line.section.title,
        "depth": line.depth,
        "text": row.text,
        "key": row.key,
        "state": library.row_state(row),
        "papers": [
            {
                "id": subject,
                "title": library.catalog.papers[subject].title,
                "state": library.state(subject),
                "since": library.since(subject),
                "runnable": subject in library.runnable(),
            }
            for subject in line.subjects
            if subject in library.catalog.papers
        ],
    }


def _print_heading(title: str, note: str) -> None:
    say(paint(one_line(title), "bold"))
    for piece in terminal.paragraphs(note):
        say(paint(piece, "dim"))
    say()


class _Cells(NamedTuple):
    """What is shown of a line; one of prose has no box."""

    section: Section
    box: str
    text: str
    state: str
    ids: str


def _print_rows(library: Library, lines: list[_Line]) -> None:
    """Three columns: the row as it was written, its state, its papers' ids."""
    shown = [_cells(library, line) for line in lines]
    rows = [cells for cells in shown if cells.box] or shown
    room = max(terminal.cells(cells.box + cells.text) for cells in rows)
    state_room = max(len(cells.state) for cells in rows)
    ids_room = max(terminal.cells(cells.ids) for cells in rows)
    total = terminal.width()
    if total is None:
        room = min(room, _ALIGNED)
    else:
        ids_room = min(ids_room, max(24, total // 3))
        room = min(room, total - state_room - ids_room - 4)
    for index, (section, group) in enumerate(groupby(shown, key=lambda cells: cells.section)):
        if index:
            say()
        say(paint(one_line(section.title), "bold"))
        for piece in terminal.paragraphs(section.note):
            say(paint(piece, "dim"))
        for cells in group:
            _print_cells(cells, room, state_room, ids_room)


def _cells(library: Library, line: _Line) -> _Cells:
    from readtrack.catalog import Row

    indent, row = "  " * line.depth, line.item
    text = one_line(row.text)
    if terminal.on_terminal():
        text = _LINK.sub(r"\1", text)  # a link by its name alone
    if not isinstance(row, Row):
        return _Cells(line.section, "", indent + text, "", "")
    state = library.row_state(row)
    ids = [f"{s}*" if s in library.runnable() else s for s in line.subjects if s in library.catalog.papers]
    return _Cells(
        line.section, f"{indent}{_box(row, state)} ", text, "" if state == "todo" else state, " ".join(ids)
    )


def _print_cells(cells: _Cells, room: int, state_room: int, ids_room: int) -> None:
    if not cells.box:
        for piece in terminal.paragraphs(cells.text):
            say(paint(piece, "dim"))
        return
    texts = terminal.wrap(cells.text, room - len(cells.box) if terminal.width() else None)
    style = STATE_STYLE.get(cells.state)
    box, state = cells.box, pad(cells.state, state_room)
    for text, ids in zip_longest(texts, terminal.wrap(cells.ids, ids_room), fillvalue=""):
        left = pad(box + text, room)
        say(f"{left}  {paint(state, style) if style else state}  {paint(ids, 'cyan')}".rstrip())
        box, state, style = " " * len(box), " " * state_room, None


def _box(row: Row, state: str) -> str:
    """The reader's tick, unless the journal has since said otherwise."""
    if state == "reading":
        return "[x]" if row.done else "[ ]"
    return {"todo": "[ ]", "skipped": "[-]"}.get(state, "[x]")
