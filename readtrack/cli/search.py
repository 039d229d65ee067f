"""`readtrack search`: searches the whole library, including PDFs."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.terminal import paint, print_out
from readtrack.errors import NotAvailableError
from readtrack.present import wording
from readtrack.text import one_line

app = typer.Typer(rich_markup_mode=None)

_EPILOG = """\b
words            all of them, in any order; the beginning of a word is enough,
                 any part of it in names and titles
"two words"      this exact phrase
state:reading    tag:gpu   year:2017..2020   section:vision   author:ba   can:run
claim:reproduced has:note  (or pdf, abstract, rating)
and or not ( )   `-word` is `not word`
"""


@app.command(epilog=_EPILOG)
def search(
    query: Annotated[list[str], typer.Argument(help="Words, phrases and fields (see below).")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Number of results.")] = 20,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Index new PDFs first.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Search titles, authors, abstracts, notes and the text of PDFs.

    The best match comes first, with its context and the page of the PDF. Exit code 3 if nothing matches.
    """
    from readtrack.fulltext.index import FullText
    from readtrack.fulltext.searching import Search, doubt, where

    library = open_library()
    index = FullText(library.home)

    def tell(unit: str) -> None:
        terminal.print_err(f"reading {unit.removeprefix('pdf:')}.pdf")

    text = " ".join(f'"{one}"' if " " in one and len(query) > 1 and '"' not in one else one for one in query)
    if pdf:
        index.refresh(library, progress=tell)
    search = Search(library, index, text)
    shown = list(islice(search, limit))
    hits = search.hits(shown)
    index.close()
    papers = library.catalog.papers
    if as_json:
        rows = [
            {
                "subject": subject,
                "title": papers[subject].title if subject in papers else None,
                "state": library.state(subject),
                "where": hit.kind if hit else None,
                "page": hit.page or None if hit else None,
                "snippet": hit.snippet.replace("\x01", "").replace("\x02", "") if hit else None,
            }
            for subject, hit in ((one, hits.get(one)) for one in shown)
        ]
        terminal.print_json({"query": text, "count": len(search.found), "results": rows})
        return
    if not shown:
        raise NotAvailableError(doubt(library, text) or "nothing matches. Try fewer or shorter words.")
    total = terminal.width()
    if search.suggestion:
        terminal.print_err(search.suggestion)
    for subject in shown:
        paper = papers.get(subject)
        title = paper.dated if paper else wording.words(library.wording(subject))
        print_out(f"{paint(subject, 'cyan')}  {one_line(title)}")
        if subject in hits and (said := where(hits[subject], full=True)):
            room = None if total is None else total - 4
            for line in terminal.wrap(one_line(said), room):
                print_out(f"    {line}")
    if len(search.found) > len(shown):
        terminal.print_err(
            f"{len(search.found) - len(shown)} more. Show them all: --limit {len(search.found)}"
        )
