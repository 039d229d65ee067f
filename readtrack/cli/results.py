"""`readtrack results`: what earlier runs came to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from readtrack.cli import terminal
from readtrack.cli.library import open_library
from readtrack.cli.report import VERDICT_STYLE
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

    Of all papers a line for each run; of one paper every claim too.
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
    elif not runs:
        raise NotAvailableError(f"no runs yet. `readtrack run {name or 'PAPER'}` makes one.")
    elif name is None:
        rows = [(_when(run), run.paper, _outcome(run), duration(run.duration), run.headline) for run in runs]
        terminal.table(rows, head=("started", "paper", "outcome", "took", "result"))
    else:
        for run in runs:
            _print_run(run)


def _print_run(run: Summary) -> None:
    how = f"{run.device}, {run.budget} budget, seed {run.seed}, {duration(run.duration)}"
    terminal.say(f"{terminal.paint(_when(run), 'bold')}  {_outcome(run)} ({how})  {run.run_id}")
    for name, verdict, ours in run.claims:
        mark = terminal.paint(f"{verdict:<14}", VERDICT_STYLE.get(verdict, "dim"))
        terminal.say(f"    {mark}  {one_line(f'{name}: {ours}')}")
    if run.outcome not in (None, "completed"):
        terminal.say(f"    {one_line(run.detail)}")


def _when(run: Summary) -> str:
    return run.started[:16].replace("T", " ")


def _outcome(run: Summary) -> str:
    return (run.outcome or "running").replace("_", " ")
