"""`readtrack search`: the whole library, PDFs included."""

from __future__ import annotations

from typing import Annotated

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.terminal import paint, print_out
from readtrack.errors import NotAvailableError
from readtrack.text import one_line

app = typer.Typer(rich_markup_mode=None)

_EPILOG = """\b
words            all of them, wherever they stand; the beginning of a word will do
"two words"      as they stand
state:reading    tag:gpu   year:2017..2020   section:vision   author:ba   can:run
claim:reproduced has:note  (or pdf, abstract, rating)
and or not ( )   `-word` is `not word`
"""


@app.command(epilog=_EPILOG)
def search(
    query: Annotated[list[str], typer.Argument(help="What to look for.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to show.")] = 20,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Read new PDFs first, or not.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Search titles, authors, abstracts, notes and the text of PDFs.

    The best comes first, with the words around and the page of a PDF. Exit code 3 if nothing fits.
    """
    from readtrack.fulltext.index import FullText
    from readtrack.fulltext.searching import Search, doubt, where

    library = open_library()
    if library.home.root.is_dir():
        library.home.ensure(library.home.cache)
    index = FullText(library.home.cache / "search.sqlite")

    def tell(unit: str) -> None:
        if unit.startswith("pdf:"):
            terminal.print_err(f"reading {unit.removeprefix('pdf:')}.pdf")

    text = " ".join(f'"{one}"' if " " in one and len(query) > 1 and '"' not in one else one for one in query)
    index.refresh(library, pdfs=pdf, progress=tell)
    found = Search(library, index, text)
    everything = found.subjects()
    results = found.results(limit)
    index.close()
    papers = library.catalog.papers
    if as_json:
        rows = [
            {
                "subject": one.subject,
                "title": papers[one.subject].title if one.subject in papers else None,
                "state": library.state(one.subject),
                "where": one.hit.kind if one.hit else None,
                "page": one.hit.page or None if one.hit else None,
                "snippet": one.hit.snippet.replace("\x01", "").replace("\x02", "") if one.hit else None,
            }
            for one in results
        ]
        terminal.print_json({"query": text, "count": len(everything), "results": rows})
        return
    if not results:
        raise NotAvailableError(doubt(library, text) or "nothing fits. Fewer or shorter words find more.")
    total = terminal.width()
    for one in results:
        paper = papers.get(one.subject)
        title = f"{paper.title} ({paper.year})" if paper else library.wording(one.subject)
        print_out(f"{paint(one.subject, 'cyan')}  {one_line(title)}")
        if one.hit is not None and (said := where(one.hit, full=True)):
            room = None if total is None else total - 4
            for line in terminal.wrap(one_line(said), room):
                print_out(f"    {line}")
    if len(everything) > len(results):
        terminal.print_err(f"{len(everything) - len(results)} more: --limit {len(everything)} shows them")
