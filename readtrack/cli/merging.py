"""`readtrack merge`: another home's journal, notes, runs and list, united with this one's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from readtrack.cli import terminal
from readtrack.home import Home
from readtrack.text import one_line
from readtrack.transfer.merging import Merge, merge

app = typer.Typer(rich_markup_mode=None)

_SHOWN = 40


@app.command("merge")
def merge_homes(
    other: Annotated[Path, typer.Argument(metavar="OTHER_HOME", help="Another machine's home.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would come; write nothing.")] = False,
) -> None:
    """Unite another home with yours: journal, notes, runs, list.

    Nothing of yours is replaced. Exit code 1 if something is in conflict: each is named, both texts are kept.
    """
    if merge_home(Home(), Home(other), write=not dry_run).conflicts:
        raise typer.Exit(1)


def merge_home(home: Home, other: Home, *, write: bool) -> Merge:
    done = merge(home, other, write=write)
    plain = [step for step in done.steps if not step.conflict]
    for step in plain[:_SHOWN]:
        terminal.print_out(one_line(f"{step.kind:<8} {step.name}: {step.what}"))
    if len(plain) > _SHOWN:
        counts = Counter(step.kind for step in plain[_SHOWN:])
        terminal.print_out("and " + ", ".join(f"{count} more of {kind}" for kind, count in counts.items()))
    for step in done.conflicts:
        terminal.print_out(
            terminal.paint(one_line(f"conflict {step.kind} {step.name}: {step.what}"), "yellow")
        )
    if not done.steps:
        terminal.print_err("nothing to do: all of it is here")
    elif not write:
        terminal.print_err("nothing was written")
    return done
