"""Commands for states, tags, ratings and notes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from readtrack import system
from readtrack.cli import terminal
from readtrack.cli.checklist import State
from readtrack.cli.library import open_library
from readtrack.errors import NotAvailableError, ReadtrackError

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.reading_list.catalog import Row

app = typer.Typer(rich_markup_mode=None)

_Paper = Annotated[str, typer.Argument(help="Id, alias, arXiv id or a part of the title.")]


@app.command()
def mark(
    papers: Annotated[
        list[str], typer.Argument(help="Papers, or rows without papers by a part of their text.")
    ],
    state: Annotated[State, typer.Argument(help="The new state.")],
) -> None:
    """Set the reading state of one or more papers."""
    library = open_library()
    before = {subject: library.state(subject) for subject in (_subject(library, query) for query in papers)}
    library.mark_all(list(before), state)
    for subject, old in before.items():
        terminal.print_out(f"{subject}: {state} already" if old == state else f"{subject}: {old} -> {state}")


@app.command()
def undo() -> None:
    """Undo the last change: a state, tag, rating, row or import."""
    from readtrack.transfer import list_history

    undone = list_history.undo(open_library())
    if undone is None:
        raise NotAvailableError("there is nothing to undo.")
    terminal.print_out(undone.said)


@app.command()
def redo() -> None:
    """Redo the last change that was undone. A new change clears the redo history."""
    from readtrack.transfer import list_history

    redone = list_history.redo(open_library())
    if redone is None:
        raise NotAvailableError("there is nothing to redo.")
    terminal.print_out(redone.said)


@app.command()
def tag(
    paper: _Paper,
    tags: Annotated[list[str] | None, typer.Argument(help="Tags to add.", show_default=False)] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Remove this tag. Repeatable.")] = None,
) -> None:
    """Add, remove or print a paper's tags."""
    library = open_library()
    subject = _subject(library, paper)
    library.change_tags(subject, add=tags or (), remove=remove or ())
    terminal.print_out(f"{subject}: {', '.join(sorted(library.tags(subject))) or 'no tags'}")


@app.command()
def rate(
    paper: _Paper, stars: Annotated[int, typer.Argument(min=0, max=5, help="1 to 5; 0 removes the rating.")]
) -> None:
    """Rate a paper from 1 to 5."""
    library = open_library()
    subject = _subject(library, paper)
    library.rate(subject, stars or None)
    terminal.print_out(f"{subject}: {f'{stars}/5' if stars else 'not rated'}")


@app.command()
def note(
    paper: _Paper,
    text: Annotated[
        str | None,
        typer.Argument(help="Append this paragraph (- reads stdin). Default: open $EDITOR, or print."),
    ] = None,
) -> None:
    """Write or print a paper's note.

    Notes are Markdown files, READTRACK_HOME/notes/ID.md. A new note starts as a copy of note-template.md, if
    you have one, with {title}, {authors}, {year}, {id}, {url}, {abstract} and {date} filled in.
    """
    from readtrack.notes import begin, settle

    library = open_library()
    found = _subject(library, paper)
    if text is not None:
        added = sys.stdin.read() if text == "-" else text
        if not added.strip():
            raise ReadtrackError("the text is empty; nothing was added.")
        library.add_to_note(found, added)
        terminal.print_err(f"added to {library.note_path(found)}")
    elif sys.stdin.isatty() and sys.stdout.isatty():
        begun = begin(library, found)
        try:
            _edit(library, library.note_path(found))
        finally:
            settle(library, found, begun)
    elif written := library.note(found):
        for line in terminal.paragraphs(written):
            terminal.print_out(line)
    else:
        raise NotAvailableError(f"there is no note on {found} yet. `readtrack note {found} TEXT` starts one.")


@app.command()
def highlight(
    paper: _Paper,
    quote: Annotated[
        str | None,
        typer.Argument(help="The quoted words. Default: print the saved quotes.", show_default=False),
    ] = None,
    page: Annotated[int | None, typer.Option(min=1, help="The page, if the quote is on several.")] = None,
    comment: Annotated[str, typer.Option(help="Your comment on the quote.")] = "",
) -> None:
    """Save a quote from a paper's PDF in its note, with the page.

    Case, spaces and hyphens are ignored in the search; the note gets the PDF's own wording.
    """
    from readtrack import notes

    library = open_library()
    found = library.find(paper)
    if quote is None:
        kept = notes.highlights(library.note(found.id))
        if not kept:
            raise NotAvailableError(f"the note on {found.id} has no quote yet.")
        for one in kept:
            terminal.print_out(f"p. {one.page:<4} {one.quote}")
        return
    added = notes.highlight(library, found.id, quote, page=page, comment=comment)
    if added is None:
        terminal.print_err(f"the quote is already in the note: {library.note_path(found.id)}")
    else:
        terminal.print_out(f"p. {added.page}: {added.quote}")


@app.command()
def adopt(
    orphan: Annotated[str, typer.Argument(help="The row:KEY that `readtrack doctor` reports.")],
    row: Annotated[str, typer.Argument(help="The row as it is now: row:KEY or a part of its text.")],
) -> None:
    """Reattach state, tags and notes to a row whose wording you changed."""
    from readtrack import upkeep

    library = open_library()
    subject = _subject(library, row)
    terminal.print_out(f"{subject}: {upkeep.adopt(library, orphan, subject)}")


def _edit(library: Library, path: Path) -> None:
    editor = system.editor() or system.usual_editor()
    if not editor:
        raise ReadtrackError(
            "EDITOR is not set, and no editor was found. Set it, or give the text: readtrack note PAPER TEXT."
        )
    library.home.ensure(path.parent)
    try:
        code = subprocess.run([*editor, str(path)], check=False).returncode
    except OSError as error:
        raise ReadtrackError(f"could not start {editor[0]!r}: {error.strerror}. Set EDITOR.") from error
    if code:
        raise ReadtrackError(f"{editor[0]} ended with exit code {code}; the note is {path}.")


def _subject(library: Library, query: str) -> str:
    """The subject for a query: a paper's id, or `row:<key>` for a row without papers (by key or part of its
    text).
    """
    if query.startswith("row:"):
        return query
    try:
        return library.find(query).id
    except ReadtrackError:
        rows = [row for row in _bare_rows(library) if query.casefold() in row.text.casefold()]
        if len(rows) != 1:
            raise
        return rows[0].subject


def _bare_rows(library: Library) -> list[Row]:
    from readtrack.reading_list.catalog import Row

    return [item for _, item in library.catalog.walk() if isinstance(item, Row) and not item.papers]
