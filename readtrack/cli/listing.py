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
    if terminal.on_terminal():
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


def _print_rows(library: Library, lines: list[_Line]) -> None:
    """Three columns: the row as it was written, its state, its papers' ids."""
    runnable = library.runnable()
    papers = library.catalog.papers
    marked = [[f"{s}*" if s in runnable else s for s in line.subjects if s in papers] for line in lines]
    total = terminal.width()
    ids_room = max(terminal.cells(" ".join(ids)) for ids in marked)
    if total is not None:
        ids_room = min(ids_room, max(24, total // 3))
    longest = max(2 * line.depth + 4 + terminal.cells(_wording(line)) for line in lines)
    text_room = min(longest, _ALIGNED if total is None else total - ids_room - 15)
    first = True
    for section, group in groupby(zip(lines, marked, strict=True), key=lambda pair: pair[0].section):
        if not first:
            say()
        first = False
        say(paint(one_line(section.title), "bold"))
        for piece in terminal.paragraphs(section.note):
            say(paint(piece, "dim"))
        for line, ids in group:
            _print_row(library, line, terminal.wrap(" ".join(ids), ids_room), text_room)


def _print_row(library: Library, line: _Line, ids: list[str], room: int) -> None:
    from readtrack.catalog import Row

    indent = "  " * line.depth
    if not isinstance(line.item, Row):
        for piece in terminal.paragraphs(_wording(line), indent=indent):
            say(paint(piece, "dim"))
        return
    state = library.row_state(line.item)
    texts = terminal.wrap(_wording(line), room - len(indent) - 4 if terminal.width() else None)
    for index, (text, names) in enumerate(zip_longest(texts, ids, fillvalue="")):
        box, word = (_box(line.item, state), state) if index == 0 else ("   ", "")
        word = "" if word == "todo" else word
        style = STATE_STYLE.get(word)
        left = pad(f"{indent}{box} {text}", room)
        middle = paint(pad(word, 11), style) if style else pad(word, 11)
        say(f"{left}  {middle}  {paint(names, 'cyan')}".rstrip())


def _box(row: Row, state: str) -> str:
    """The reader's tick, unless the journal has since said otherwise."""
    if state == "reading":
        return "[x]" if row.done else "[ ]"
    return {"todo": "[ ]", "skipped": "[-]"}.get(state, "[x]")


def _wording(line: _Line) -> str:
    """The row's own text; on a terminal a link is shown by its name alone."""
    text = one_line(line.item.text)
    return _LINK.sub(r"\1", text) if terminal.on_terminal() else text
