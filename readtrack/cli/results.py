"""`readtrack results`: what earlier runs came to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.errors import NotAvailableError
from readtrack.text import duration, one_line

if TYPE_CHECKING:
    from readtrack.runs.record import Summary

app = typer.Typer(rich_markup_mode=None)


@app.command()
def results(
    paper: Annotated[str | None, typer.Argument(help="Only this paper's runs.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document: a list of runs.")] = False,
) -> None:
    """What runs came to, the newest first.

    Each with its outcome, its device, and the verdict on each claim.
    """
    from readtrack.runs.record import reconcile

    library = open_library()
    reconcile(library.home)
    name = None
    if paper is not None:
        # A plugin need not be on the list.
        name = paper if paper in library.runnable() else library.find(paper).id
    runs = library.results(name)
    if as_json:
        terminal.say_json([asdict(run) for run in runs])
        return
    if not runs:
        raise NotAvailableError(f"no runs yet. `readtrack run {name or 'PAPER'}` makes one.")
    head = ("started", "paper", "outcome", "device", "budget", "seed", "took", "claims")
    terminal.table([_row(run) for run in runs], head=head)


def _row(run: Summary) -> tuple[str, ...]:
    claims = "; ".join(f"{name}: {verdict} ({ours})" for name, verdict, ours in run.claims)
    return (
        run.started[:16].replace("T", " "),
        run.paper,
        run.outcome or "running",
        run.device,
        run.budget,
        str(run.seed),
        duration(run.duration),
        one_line(claims if run.outcome == "completed" and claims else run.headline),
    )
