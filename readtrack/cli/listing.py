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
        typer.Argument(help="Only rows that fit: words, or what `search` takes.", show_default=False),
    ] = None,
    state: Annotated[State | None, typer.Option(help="Only papers in this state.")] = None,
    section: Annotated[str | None, typer.Option(help="Only sections with this text in the heading.")] = None,
    runnable: Annotated[bool, typer.Option("--runnable", help="Only papers that can be run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document: a list of rows.")] = False,
) -> None:
    """The checklist as its reader wrote it.

    A paper marked * can be run.
    """
    checklist.show(words or [], state=state, section=section, runnable=runnable, as_json=as_json)
