"""`readtrack import`, `export`, `link`, `unlink` and `remove`."""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.merging import Plugins
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.text import counted, one_line

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.transfer.importing import Choices, ImportPlan, ImportRow

app = typer.Typer(rich_markup_mode=None)

_STYLES: dict[str, terminal.Style] = {
    "matched": "green",
    "new": "green",
    "linked": "green",
    "ambiguous": "yellow",
    "unknown": "yellow",
    "duplicate": "cyan",
    "listed": "dim",
    "left out": "dim",
}
_CHOICE = re.compile(r"\s*(\d{1,9})\s*=\s*(\S.*)")
_SHOWN = 5


@app.command("import")
def import_list(
    file: Annotated[Path, typer.Argument(help="A Markdown checklist, BibTeX (.bib), or an export in JSON.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the rows; write nothing.")] = False,
    choose: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="LINE=PAPERS",
            help="Papers of a row: 12=bert,roberta, or 12=none. Repeatable.",
        ),
    ] = None,
    skip: Annotated[
        list[int] | None, typer.Option(metavar="LINE", help="Leave out the row on this line. Repeatable.")
    ] = None,
    pdfs: Annotated[
        bool | None,
        typer.Option("--pdfs/--no-pdfs", help="Attach the PDFs that the file lists.", show_default="ask"),
    ] = None,
    plugins: Plugins = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as one JSON document.")] = False,
) -> None:
    """Import a list: Markdown, BibTeX, or a JSON export of readtrack.

    Each row is matched to a known paper by arXiv id, DOI, link, title or alias, and shown before anything is
    written. Unknown rows stay as plain rows; `readtrack link` links them to a paper later. Importing a file
    again changes only the rows that --as names.
    """
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    if not (yes or dry_run or asks):
        raise ReadtrackError(
            "import asks before it writes, and there is no terminal to ask in. Add --yes or --dry-run."
        )
    if file.suffix.casefold() == ".json":
        _restore(file, write=not dry_run, plugins=plugins, yes=yes)
        return
    from readtrack.transfer import list_history
    from readtrack.transfer.importing import Choices, apply, plan

    library = open_library()
    choices = Choices(dict(_chosen(one) for one in choose or []), skip or ())
    made = plan(library, file, choices)
    if as_json:
        terminal.print_json(_document(library, made))
    else:
        _show(library, made)
    if not (made.changes(library) or (pdfs and made.pdfs)):
        terminal.print_err("nothing to do: everything is on your list already")
        return
    if not dry_run and not yes:
        made, yes = _ask(library, file, choices, made)
    if dry_run or not yes:
        terminal.print_err("nothing was written")
        return
    if pdfs is None and made.pdfs and asks:
        pdfs = _agrees(f"Attach {counted(len(made.pdfs), 'PDF')}? [y/N] ")
    with list_history.recorded(library, f"{one_line(made.incoming.name)} imported"):
        problems = apply(library, made, pdfs=bool(pdfs))
    for problem in problems:
        terminal.print_err(f"readtrack: not attached: {problem}")
    terminal.print_err(
        "Imported. `readtrack export` writes it out with current check marks; `readtrack undo` takes it back."
    )
    if made.pdfs and not pdfs:
        terminal.print_err(f"the PDFs were not attached; `readtrack import {file} --pdfs` attaches them")


def _restore(file: Path, *, write: bool, plugins: bool, yes: bool) -> None:
    """Merge a JSON export into the home, which may be empty."""
    import tempfile

    from readtrack.cli.merging import merge_home
    from readtrack.home import Home
    from readtrack.transfer.exporting import unpack

    with tempfile.TemporaryDirectory() as folder:
        other = Home(folder)
        unpack(file, other)
        merge_home(Home(), other, write=write, plugins=plugins, yes=yes)


@app.command("export")
def export_list(
    form: Annotated[
        Literal["markdown", "bibtex", "json", "csv"], typer.Option("--format", help="The format to write.")
    ] = "markdown",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write. Default: stdout.", show_default=False),
    ] = None,
    pdfs: Annotated[
        bool, typer.Option("--pdfs", help="Include PDFs that a sync could fetch again (JSON).")
    ] = False,
) -> None:
    """Export your list as Markdown, BibTeX, CSV, or JSON (which holds everything).

    Markdown keeps the lines of an imported checklist and updates its check marks. A JSON export restores the
    whole home if you import it into an empty one.
    """
    from readtrack.transfer import writing

    library = open_library()
    if output is not None:
        left_out = writing.write(library, form, output, pdfs=pdfs)
    elif form == "json":  # may be large, and is plain ASCII without control characters
        left_out = writing.write_to(library, form, sys.stdout, pdfs=pdfs)
    else:
        text = io.StringIO()
        left_out = writing.write_to(library, form, text)
        terminal.say_exactly(text.getvalue())
    for sentence in left_out:
        terminal.print_err(f"readtrack: {sentence}")
    if output is not None:
        terminal.print_err(f"{output} written")


@app.command()
def link(
    row: Annotated[str, typer.Argument(help="A row: a part of its text, or row:KEY.")],
    papers: Annotated[list[str], typer.Argument(help="The papers to link it to.")],
) -> None:
    """Link a row of your list to papers.

    The row's state, tags, rating and note move to the papers. `readtrack unlink` removes the link.
    """
    from readtrack.transfer import linking, list_history

    library = open_library()
    found = linking.find_row(library, row)
    known = linking.known_papers(library)
    wanted = tuple(dict.fromkeys(linking.find_paper(library, known, one) for one in papers))
    with list_history.recorded(library, f"{one_line(found.text)} linked to {' '.join(wanted)}"):
        linking.link(library, found, wanted)
    before = f" (was {' '.join(found.papers)})" if found.papers else ""
    terminal.print_out(f"{one_line(found.text)}: {' '.join(wanted)}{before}")


@app.command()
def unlink(
    row: Annotated[str, typer.Argument(help="A row: a part of its text, or row:KEY.")],
) -> None:
    """Remove a row's link to its papers. The row keeps its text and state."""
    from readtrack.transfer import linking, list_history

    library = open_library()
    found = linking.find_row(library, row)
    if not found.papers:
        raise NotAvailableError(f"{one_line(found.text)!r} is not linked to a paper.")
    with list_history.recorded(library, f"{one_line(found.text)} no longer linked"):
        linking.unlink(library, found)
    terminal.print_out(f"{one_line(found.text)}: no longer linked (was {' '.join(found.papers)})")


@app.command()
def remove(
    row: Annotated[str, typer.Argument(help="A row: a part of its text, or row:KEY.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Remove a row from your list, after confirmation.

    Rows nested inside it are removed, too. `readtrack undo` brings all of them back. The state, tags, rating,
    note and runs of its papers are kept.
    """
    from readtrack.transfer import linking, list_history

    library = open_library()
    found = linking.find_row(library, row)
    words = one_line(found.text)
    more = f" and {counted(linking.inside(found), 'row')} inside it" if linking.inside(found) else ""
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ReadtrackError("remove asks first, and there is no terminal to ask in. Add --yes.")
    if not yes and not _agrees(f"Remove {words}{more} from your list? [y/N] "):
        terminal.print_err("nothing was removed")
        return
    with list_history.recorded(library, f"{words} removed from your list"):
        linking.remove(library, found)
    terminal.print_out(f"{words}{more}: removed from your list")
    terminal.print_err("`readtrack undo` brings it back")


def _chosen(choice: str) -> tuple[int, list[str]]:
    found = _CHOICE.fullmatch(choice)
    papers = [one.strip() for one in found[2].split(",") if one.strip()] if found else []
    if not found or not papers:
        raise typer.BadParameter(f"--as {choice}: expected a line and papers, such as 12=bert,roberta")
    return int(found[1]), [] if papers == ["none"] else papers


def _ask(library: Library, file: Path, choices: Choices, made: ImportPlan) -> tuple[ImportPlan, bool]:
    """Ask whether to write. The answer `16=gqa` chooses the paper of a row and repeats the question."""
    from readtrack.transfer.importing import Choices, plan

    while True:
        answer = _answer("Write it? [y/N, or LINE=PAPERS] " if _unsure(made) else "Write it? [y/N] ")
        if not _CHOICE.fullmatch(answer):
            return made, answer.casefold() in ("y", "yes")
        line, papers = _chosen(answer)
        try:
            choices = Choices({**choices.papers, line: papers}, choices.left_out)
            made = plan(library, file, choices)
        except ReadtrackError as error:
            choices = Choices({at: of for at, of in choices.papers.items() if at != line}, choices.left_out)
            terminal.print_err(f"readtrack: {error}")
        else:
            _show(library, made)


def _agrees(question: str) -> bool:
    return _answer(question).casefold() in ("y", "yes")


def _answer(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _unsure(made: ImportPlan) -> list[ImportRow]:
    return [one for one in made.found if one.candidates and not one.papers]


def _document(library: Library, made: ImportPlan) -> dict[str, Any]:
    return {
        "file": made.incoming.name,
        "rows": [asdict(one) for one in made.found],
        "pdfs": {paper: str(path) for paper, path in made.pdfs.items()},
        "problems": made.problems,
        "changes": made.changes(library),
    }


def _show(library: Library, made: ImportPlan) -> None:
    from readtrack.transfer.importing import target

    rows = [(one.status, str(one.line), _meaning(one), one_line(one.text)) for one in made.found]
    styles = [_STYLES[one.status] for one in made.found]
    total = terminal.width()
    room = 44 if total else None
    rows = [(status, line, terminal.clip(meaning, room), text) for status, line, meaning, text in rows]
    head = ("what", "line", "means", "row")
    widths = [max(terminal.cells(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    left = None if total is None else max(8, total - sum(widths[:3]) - 6)
    for row, style in zip([head, *rows], ["dim", *styles], strict=True):
        cells = [terminal.pad(cell, width) for cell, width in zip(row[:3], widths, strict=False)]
        cells[0] = terminal.paint(cells[0], style)
        terminal.print_out("  ".join([*cells, terminal.clip(row[3], left)]).rstrip())
    terminal.print_out()
    counts = Counter(one.status for one in made.found)
    terminal.print_out(
        f"{counted(len(rows), 'row')}: " + ", ".join(f"{count} {status}" for status, count in counts.items())
    )
    if made.abstracts:
        terminal.print_out(f"abstracts for {counted(len(made.abstracts), 'paper')}")
    for paper, path in made.pdfs.items():
        terminal.print_out(f"PDF for {paper}: {path}")
    for problem in made.problems:
        terminal.print_err(f"readtrack: {problem}")
    if unsure := _unsure(made):
        shown = " ".join(f"--as {one.line}={one.candidates[0]}" for one in unsure[:_SHOWN])
        more = " ..." if len(unsure) > _SHOWN else ""
        terminal.print_err(f"{counted(len(unsure), 'row')} may mean several papers. Choose: {shown}{more}")
        terminal.print_err(
            "Otherwise they stay plain rows; `readtrack link ROW PAPER` links them to a paper later."
        )
    if made.changes(library):
        path = target(library)
        terminal.print_err(f"{'the rows go into' if made.own else 'the rows become'} your list: {path}")


def _meaning(one: ImportRow) -> str:
    papers = " ".join(one.papers)
    if not papers and one.candidates:
        return f"maybe {' or '.join(one.candidates)}"
    if one.status == "duplicate":
        return f"{papers} (as {one.twin})".strip()
    if one.status == "listed":
        chosen = "chosen, " if one.how == "chosen" else ""
        return f"{papers} ({chosen}as {one.twin})".strip() if one.twin else papers or "the row"
    return f"{papers} ({one.how})" if papers else "no paper"
