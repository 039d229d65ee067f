"""`readtrack report`: writes the list, runs and claims as web pages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library, run_folder
from readtrack.errors import ReadtrackError
from readtrack.text import counted, format_bytes

app = typer.Typer(rich_markup_mode=None)


@app.command()
def report(
    papers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PAPER]...", help="Papers to show. Default: the whole list.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for the pages. Default: READTRACK_HOME/report."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Include notes, tags, ratings, paths and machines' names.")
    ] = False,
    card: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Write the replication card of this run instead.", show_default=False
        ),
    ] = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Show what ships with readtrack, and nothing of yours.")
    ] = False,
) -> None:
    """Write your list, runs and claims as web pages.

    The pages are plain HTML: open index.html in a browser, or put the folder on any web server. Notes, tags,
    ratings, file paths and names of machines are left out unless you add --private.

    With --card, write one run as an HTML file and a Markdown file, by default into READTRACK_HOME/cards.
    `readtrack replay` can repeat the run from either file.
    """
    if card is not None:
        if papers or shipped:
            raise ReadtrackError("--card is about one run: leave out papers and --shipped.")
        _card(card, output, private=private)
        return
    from readtrack.report.gather import of_reader, of_shipped
    from readtrack.report.site import build, write

    start = time.perf_counter()
    if shipped and private:
        raise ReadtrackError(
            "--shipped and --private cannot be combined: everything that ships with readtrack is public."
        )
    if shipped:
        if output is None:
            raise ReadtrackError("--shipped needs --output FOLDER.")
        source, folder = of_shipped(), output
    else:
        library = open_library()
        source, folder = of_reader(library, private=private), output or library.home.root / "report"
        papers = [library.find(paper).id for paper in papers or ()]
    unknown = [paper for paper in papers or () if paper not in source.catalog.papers]
    if unknown:
        raise ReadtrackError(f"there is no paper {', '.join(unknown)}. `readtrack list` shows all papers.")
    site = build(source, papers or ())
    write(site, folder)
    for problem in source.problems:
        terminal.warn(problem)
    size = format_bytes(sum(map(len, site.files.values())))
    took = time.perf_counter() - start
    terminal.print_err(f"readtrack: {counted(len(site.papers), 'paper')}, {size}, in {took:.1f} s")
    terminal.print_out(str(folder / "index.html"))


def _card(query: str, output: Path | None, *, private: bool) -> None:
    from readtrack.report.card import of_library
    from readtrack.report.pages import write_card

    library = open_library()
    folder = run_folder(library.home, query)
    made = of_library(library, folder, private=private)
    for file in write_card(made, output or library.home.root / "cards", folder.name):
        terminal.print_out(str(file))
