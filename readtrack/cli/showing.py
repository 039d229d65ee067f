"""`readtrack show`: prints a paper's details."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.terminal import paint, print_out
from readtrack.latex import readable
from readtrack.runs.evidence import shown_verdict
from readtrack.text import one_line, plain

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.reading_list.catalog import Paper

_LABEL = 12
_RUNS = 5

app = typer.Typer(rich_markup_mode=None)


@app.command()
def show(
    paper: Annotated[str, typer.Argument(help="Id, alias, arXiv id or a part of the title.")],
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also print how each claim's set-up differs from the paper's.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a paper's details: facts, state, lineage, note and runs.

    A paper that ships with readtrack need not be on your list.
    """
    from readtrack.runs.processes import reconcile

    library = open_library()
    reconcile(library.home, report=terminal.warn)
    found = library.find(paper)
    if as_json:
        terminal.print_json(_facts(library, found))
    else:
        _print(library, found, verbose=verbose)


def _facts(library: Library, paper: Paper) -> dict[str, Any]:
    plugin = library.runnable().get(paper.id)
    metadata = library.metadata(paper.id) or {}
    pdf = library.pdf(paper.id)
    return {
        "id": paper.id,
        "title": paper.title,
        "authors": list(paper.authors),
        "year": paper.year or None,
        "sources": [{"kind": s.kind, "value": s.value, "url": s.url, "note": s.note} for s in paper.sources],
        "aliases": list(paper.aliases),
        "missing": list(paper.missing),
        "on_list": paper.id in library.listed,
        "rows": [row.text for row in library.catalog.rows_of(paper.id)],
        "state": library.shown_state(paper.id),
        "since": library.since(paper.id),
        "tags": sorted(library.tags(paper.id)),
        "rating": library.rating(paper.id),
        "builds_on": list(paper.builds_on),
        "led_to": library.successors(paper.id),
        "problem": paper.problem,
        "idea": paper.idea,
        "result": paper.result,
        "abstract": metadata.get("abstract"),
        "plugin": None if plugin is None else {"origin": plugin.origin, "location": plugin.location},
        "pdf": None if pdf is None else str(pdf),
        "note": library.note(paper.id),
        "runs": [
            {
                "run_id": run.run_id,
                "condition": run.condition,
                "outcome": run.outcome,
                "headline": run.headline,
            }
            for run in library.results(paper.id, report=terminal.warn)
        ],
        "shipped_verdicts": [asdict(one) for one in library.shipped_verdicts.get(paper.id, ())],
    }


def _print(library: Library, paper: Paper, *, verbose: bool) -> None:
    facts = _facts(library, paper)
    print_out(paint(one_line(paper.title), "bold"))
    print_out()
    _field("by", paper.by)
    since = f" since {facts['since']}" if facts["since"] else ""
    rating = f", rated {facts['rating']}/5" if facts["rating"] else ""
    tags = f", tagged {', '.join(facts['tags'])}" if facts["tags"] else ""
    _field("id", " ".join([paper.id, *(f"({alias})" for alias in paper.aliases)]))
    _field("state", f"{facts['state'] or 'not on your list'}{since}{rating}{tags}")
    if not facts["on_list"]:
        _field("add", f"readtrack add {paper.id} puts it on your list")
    if paper.missing:
        _field("missing", f"{', '.join(paper.missing)}; {_how_to_fill_in(library, paper)}")
    for row in facts["rows"]:
        _field("row", row)
    for source in facts["sources"]:
        _field("source", f"{source['url']}{'  ' + source['note'] if source['note'] else ''}")
    _field("PDF", facts["pdf"] or ("not fetched" if paper.pdf_sources else "no link"))
    _field("builds on", ", ".join(facts["builds_on"]))
    _field("led to", ", ".join(facts["led_to"]))
    plugin = facts["plugin"]
    _field("runs", f"readtrack run {paper.id}  ({plugin['location']})" if plugin else "no plugin yet")
    print_out()
    _field("problem", paper.problem)
    _field("idea", paper.idea)
    _field("result", paper.result)
    _field("abstract", readable(facts["abstract"] or ""))
    shipped = library.shipped_verdicts.get(paper.id, [])
    if shipped:
        print_out()
        for index, one in enumerate(shipped):
            verdict = shown_verdict(one.verdict, one.kind)
            _field("shipped" if index == 0 else "", f"{verdict}: {one.claim}, {one.counted}")
            _field("", one.sentence, indent=2)
            if verbose and one.deviations:
                _field("", f"Differs from the paper: {one.deviations}", indent=2)
        _field("", f"measured on {shipped[0].made}")
    if facts["runs"]:
        print_out()
        for run in facts["runs"][:_RUNS]:
            condition = f"  {run['condition']}" if run["condition"] else ""
            _field("run", f"{run['run_id']}{condition}  {run['outcome'] or 'running'}  {run['headline']}")
        if len(facts["runs"]) > _RUNS:
            _field("", f"{len(facts['runs']) - _RUNS} more: readtrack results {paper.id}")
    if facts["note"].strip():
        print_out()
        print_out(paint("note", "dim"))
        for line in terminal.paragraphs(facts["note"], indent="  "):
            print_out(line)


def _how_to_fill_in(library: Library, paper: Paper) -> str:
    if paper.facts_can_be_fetched:
        return f"readtrack sync {paper.id} fetches them"
    return f"add them in {library.catalog.path.name}:{paper.line}"


def _field(label: str, text: str, *, indent: int = 0) -> None:
    """Print a labelled paragraph, indented by some columns, or nothing if the text is empty."""
    if not plain(text).strip():
        return
    total = terminal.width()
    room = None if total is None else total - _LABEL - indent
    for index, piece in enumerate(terminal.wrap(one_line(text), room)):
        print_out(f"{paint(terminal.pad(label if index == 0 else '', _LABEL), 'dim')}{' ' * indent}{piece}")
