"""`readtrack bibtex`, `lineage`, `next`, `stats`: other views of the list."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from readtrack.cli import terminal
from readtrack.cli.checklist import STATE_STYLE
from readtrack.cli.library import open_library
from readtrack.cli.terminal import paint, print_out
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.present import marks
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.lineage import LineageNode

app = typer.Typer(rich_markup_mode=None)

_Paper = Annotated[
    str, typer.Argument(help="Id, alias, arXiv id or a part of the title.", show_default=False)
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def bibtex(paper: _Paper) -> None:
    """Print a paper's BibTeX entry: the imported one, or one made from its metadata."""
    from readtrack.transfer.exporting import entry

    library = open_library()
    terminal.say_exactly(entry(library, library.find(paper)) + "\n")


@app.command()
def lineage(
    paper: Annotated[str, typer.Argument(help="Id, alias, arXiv id or a part of the title.")] = "",
    timeline: Annotated[
        str, typer.Option(help="List the papers of this section or row by year instead.")
    ] = "",
    as_json: _Json = False,
) -> None:
    """Show a paper's prerequisites and successors as a tree.

    With `--timeline normalization`, list the papers of that section by year, each with its idea.
    """
    library = open_library()
    if timeline:
        _timeline(library, timeline, as_json)
        return
    if not paper:
        raise ReadtrackError("name a paper, or --timeline and a word of a section's heading.")
    from readtrack.lineage import ancestors, descendants, drawn

    found = library.find(paper)
    above, below = ancestors(library.catalog, found.id), descendants(library.catalog, found.id)
    if as_json:
        terminal.print_json({"paper": found.id, "builds_on": _json(above), "led_to": _json(below)})
        return
    print_out(_named(library, found.id))
    for label, tree in (("builds on", above), ("led to", below)):
        if not tree.below:
            print_out(paint(f"{label}: nothing on the list", "dim"))
            continue
        print_out(paint(label, "dim"))
        for branches, node in drawn(tree.below):
            print_out(
                f"{paint(branches, 'dim')}{_named(library, node.paper)}{' (above)' if node.again else ''}"
            )


def _json(node: LineageNode) -> list[dict[str, Any]]:
    return [{"paper": one.paper, "again": one.again, "below": _json(one)} for one in node.below]


def _named(library: Library, id_: str) -> str:
    paper, state = library.catalog.papers[id_], library.shown_state(id_)
    sign, style = (marks.STATES[state], STATE_STYLE.get(state)) if state is not None else (" ", None)
    mark = paint(sign, style) if style else sign
    return f"{mark} {paint(id_, 'cyan')}  {one_line(paper.dated)}"


def _timeline(library: Library, topic: str, as_json: bool) -> None:
    from readtrack.lineage import timeline

    moments = timeline(library.catalog, topic)
    if as_json:
        rows = [
            {
                "paper": one.paper.id,
                "year": one.paper.year or None,
                "title": one.paper.title,
                "after": list(one.after),
            }
            | {"problem": one.paper.problem, "idea": one.paper.idea, "result": one.paper.result}
            | {"state": library.state(one.paper.id)}
            for one in moments
        ]
        terminal.print_json(rows)
        return
    total = terminal.width()
    room = None if total is None else total - 6
    for one in moments:
        after = f"  after {', '.join(one.after)}" if one.after else ""
        year = paint(str(one.paper.year or "????"), "bold")
        print_out(f"{year}  {_named(library, one.paper.id)}{paint(after, 'dim')}")
        for line in terminal.wrap(one_line(one.paper.idea), room):
            print_out(f"      {line}")


@app.command("next")
def propose(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of papers.")] = 3,
    practice: Annotated[bool, typer.Option("--practice", help="Suggest exercises to write instead.")] = False,
    as_json: _Json = False,
) -> None:
    """Suggest what to read next.

    Papers whose prerequisites you have read come first, sorted by their number of successors. With
    --practice, exercises that you should repeat come first, then papers whose prerequisites you have
    implemented.
    """
    from readtrack.lineage import proposals

    library = open_library()
    if practice:
        _exercises(library, count, as_json)
        return
    found = proposals(library)[:count]
    if as_json:
        terminal.print_json([{**asdict(one), "paper": one.paper.id, "reason": one.reason} for one in found])
        return
    if not found:
        raise NotAvailableError(
            "every paper on your list has been read or begun."
            if library.listed
            else "your list has no papers. `readtrack add PAPER` puts one on it."
        )
    total = terminal.width()
    for one in found:
        print_out(
            f"{paint(one.paper.id, 'cyan')}  {paint(one_line(one.paper.title), 'bold')}"
            f"{f' ({one.paper.year})' if one.paper.year else ''}"
        )
        for line in terminal.wrap(one.reason, None if total is None else total - 4):
            print_out(f"    {line}")


def _exercises(library: Library, count: int, as_json: bool) -> None:
    from itertools import islice

    from readtrack.rehearsal import suggestions

    found = list(islice(suggestions(library), count))
    if as_json:
        rows = [
            {"paper": one.sheet.paper, "exercise": one.sheet.name, "task": one.sheet.task}
            | {"reason": one.reason, "again": one.again, "command": one.command}
            for one in found
        ]
        terminal.print_json(rows)
        return
    if not found:
        raise NotAvailableError("every exercise is done, and none is due again yet.")
    total = terminal.width()
    for one in found:
        print_out(f"{paint(one.sheet.paper, 'cyan')}  {paint(one.sheet.name, 'bold')}")
        for text in (one.sheet.task, one.reason):
            for line in terminal.wrap(text, None if total is None else total - 4):
                print_out(f"    {line}")
        print_out(f"    {one.command}")


@app.command()
def stats(as_json: _Json = False) -> None:
    """Show reading statistics: states by section, days, streaks, pages and bets."""
    from readtrack.bets import BetBook, settle_all
    from readtrack.cli.bets import show_calibration
    from readtrack.present import bets as present_bets
    from readtrack.reading_list.journal import STATES
    from readtrack.statistics import heat_map, statistics

    library = open_library()
    found = statistics(library)
    settle_all(library)
    placed = BetBook(library.home).bets()
    if as_json:
        document = {
            "states": dict(found.states),
            "sections": [{"section": title, "states": dict(states)} for title, states in found.sections],
            "days": {day.isoformat(): number for day, number in sorted(found.days.items())},
            "streak": found.streak,
            "longest_streak": found.longest,
            "pages": found.pages,
            "papers_without_pages": found.unknown,
            "bets": present_bets.document(placed),
        }
        terminal.print_json(document)
        return
    rows = [(one_line(title), *(str(states[s] or "") for s in STATES)) for title, states in found.sections]
    rows.append(("all", *(str(found.states[state]) for state in STATES)))
    terminal.table(rows, head=("section", *STATES))
    print_out()
    total = terminal.width()
    for line in heat_map(found, min(53, (total or 80) - 5)):
        print_out(paint(line, "green"))
    print_out()
    print_out(found.sentence)
    print_out()
    show_calibration(placed)
