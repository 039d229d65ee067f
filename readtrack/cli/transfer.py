"""`readtrack import`, `export`: the list and all that belongs to it, in and out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.errors import ReadtrackError
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.transfer.importing import Found, Plan

app = typer.Typer(rich_markup_mode=None)

_STYLES: dict[str, terminal.Style] = {
    "matched": "green",
    "new": "green",
    "ambiguous": "yellow",
    "unknown": "yellow",
    "duplicate": "cyan",
    "listed": "dim",
}


@app.command("import")
def import_list(
    file: Annotated[Path, typer.Argument(help="A Markdown checklist, BibTeX (.bib), or an export in JSON.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the table; write nothing.")] = False,
    choose: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="LINE=PAPERS", help="What a row means: 12=bert,roberta; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The table as one JSON document.")] = False,
) -> None:
    """Bring a list into your own: Markdown, BibTeX, or what `readtrack export` wrote.

    Each row is matched to a known paper by arXiv id, DOI, link, title or alias, and shown before anything is
    written. Rows that are not known stay rows. Importing a file again changes nothing.
    """
    if not (yes or dry_run or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise ReadtrackError("import asks before it writes, and this is no terminal; say --yes or --dry-run.")
    if file.suffix.casefold() == ".json":
        _restore(file, write=not dry_run)
        return
    from readtrack.transfer.importing import apply, plan

    library = open_library()
    made = plan(library, file, _chosen(choose or []))
    changes = made.changes(library.home)
    writes = changes and not dry_run and (yes or as_json is False)
    if as_json:
        rows = [asdict(one) for one in made.found]
        document = {"file": str(file), "rows": rows, "problems": made.problems, "changes": changes}
        terminal.print_json(document)
    else:
        _show(made)
    if not changes:
        terminal.print_err("nothing to do: all of it is on your list already")
        return
    what = (
        "extends your list"
        if made.own
        else "makes a list of your own, which takes the place of the shipped one"
    )
    terminal.print_err(f"this {what}: {library.catalog.path if made.own else library.home.papers_yaml}")
    if not writes or not (yes or _agrees()):
        terminal.print_err("nothing was written")
        return
    apply(library, made)
    terminal.print_err("imported; `readtrack export` gives it back with the ticks of the day")


def _restore(file: Path, *, write: bool) -> None:
    """An export in JSON: into an empty home as it is, else merged into what is there."""
    import tempfile

    from readtrack.home import Home
    from readtrack.transfer.exporting import unpack

    home = Home()
    if write and not home.journal.exists() and not home.papers_yaml.exists() and not home.notes.exists():
        terminal.print_out(f"{unpack(file, home)} files restored into {home.root}")
        return
    from readtrack.cli.merging import merge_home

    with tempfile.TemporaryDirectory() as folder:
        other = Home(folder)
        unpack(file, other)
        merge_home(home, other, write=write)


@app.command("export")
def export_list(
    form: Annotated[
        Literal["markdown", "bibtex", "json", "csv"], typer.Option("--format", help="What to write.")
    ] = "markdown",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; without: stdout.", show_default=False)
    ] = None,
    pdfs: Annotated[
        bool, typer.Option("--pdfs", help="JSON: with the PDFs that a sync could fetch again.")
    ] = False,
) -> None:
    """Write your list as Markdown, BibTeX, CSV, or JSON that holds everything.

    Markdown gives an imported checklist back in its own lines, with the ticks of today. JSON can be imported
    into an empty home, which is then as this one.
    """
    from readtrack.home import write_text
    from readtrack.transfer import exporting

    library = open_library()
    if form == "json":
        text = json.dumps(exporting.to_json(library, pdfs=pdfs), ensure_ascii=True, indent=1) + "\n"
    else:
        text = {"markdown": exporting.to_markdown, "bibtex": exporting.to_bibtex, "csv": exporting.to_csv}[
            form
        ](library)
    if output is None:
        terminal.say_exactly(text)
        return
    try:
        write_text(output, text)
    except OSError as error:
        raise ReadtrackError(f"could not write {output}: {error.strerror}.") from error
    terminal.print_err(f"{output} written")


def _chosen(choices: list[str]) -> dict[int, list[str]]:
    chosen = {}
    for choice in choices:
        line, equals, papers = choice.partition("=")
        if not equals or not line.strip().isdecimal() or not papers.strip():
            raise typer.BadParameter(f"--as {choice}: write a line and papers, as in 12=bert,roberta")
        chosen[int(line)] = [one.strip() for one in papers.split(",") if one.strip()]
    return chosen


def _agrees() -> bool:
    sys.stderr.write("Write it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().casefold() in ("y", "yes")


def _show(made: Plan) -> None:
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
        f"{len(rows)} rows: " + ", ".join(f"{count} {status}" for status, count in counts.items())
    )
    for problem in made.problems:
        terminal.print_err(f"readtrack: {problem}")


def _meaning(one: Found) -> str:
    papers = " ".join(one.papers)
    if one.status == "ambiguous":
        return f"one of {' '.join(one.candidates)}?"
    if one.status == "duplicate":
        return f"{papers} (as {one.twin})".strip()
    if one.status == "listed":
        return f"{papers} (as {one.twin})".strip() if one.twin else papers or "the row"
    return f"{papers} ({one.how})" if papers else "a row"
