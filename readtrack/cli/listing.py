"""`readtrack list`: the checklist tree."""

from __future__ import annotations

from typing import Annotated

import typer

from readtrack.cli import checklist
from readtrack.cli.checklist import State

app = typer.Typer(rich_markup_mode=None)


@app.command("list")
def list_papers(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Show only matching rows: words, or a `search` query.", show_default=False),
    ] = None,
    state: Annotated[State | None, typer.Option(help="Show only papers in this state.")] = None,
    section: Annotated[
        str | None, typer.Option(help="Show only sections with this text in the heading.")
    ] = None,
    runnable: Annotated[bool, typer.Option("--runnable", help="Show only papers that can be run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document: a list of rows.")] = False,
) -> None:
    """Show the checklist and the state of each paper.

    An asterisk marks papers that can be run.
    """
    checklist.show(words or [], state=state, section=section, runnable=runnable, as_json=as_json)
