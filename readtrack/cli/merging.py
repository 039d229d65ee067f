"""`readtrack merge`: merges another home's journal, notes, runs and list into this one."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from readtrack.cli import terminal
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.text import one_line
from readtrack.transfer.merging import Merge, Step, merge

app = typer.Typer(rich_markup_mode=None)

_SHOWN = 40

Plugins = Annotated[
    bool,
    typer.Option("--plugins", help="Also merge plugins and places.yaml (they run code; listed first)."),
]


@app.command("merge")
def merge_homes(
    other: Annotated[Path, typer.Argument(metavar="OTHER_HOME", help="Another machine's home.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; write nothing.")
    ] = False,
    plugins: Plugins = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Merge the plugins without asking.")] = False,
) -> None:
    """Merge another home into yours: journal, notes, runs and list.

    None of your data is replaced. Plugins are code and are only merged with --plugins. Exit code 1 if there
    are conflicts: each is reported, and both texts are kept.
    """
    if merge_home(Home(), Home(other), write=not dry_run, plugins=plugins, yes=yes).conflicts:
        raise typer.Exit(1)


def merge_home(home: Home, other: Home, *, write: bool, plugins: bool, yes: bool) -> Merge:
    """Merge and print the steps. Raises ReadtrackError if the reader does not confirm the plugins."""
    if plugins and write:
        _confirm(home, other, yes=yes)
    done = merge(home, other, write=write, code=plugins)
    plain = [step for step in done.steps if not step.conflict]
    _print("", plain)
    for step in done.conflicts:
        terminal.print_out(
            terminal.paint(one_line(f"conflict {step.kind} {step.name}: {step.what}"), "yellow")
        )
    _print("left out: ", done.left_out)
    if not done.steps:
        terminal.print_err("nothing to do: everything is here already")
    elif not write:
        terminal.print_err("nothing was written")
    return done


def _print(label: str, steps: list[Step]) -> None:
    for step in steps[:_SHOWN]:
        terminal.print_out(one_line(f"{label}{step.kind:<8} {step.name}: {step.what}"))
    if len(steps) > _SHOWN:
        counts = Counter(step.kind for step in steps[_SHOWN:])
        more = ", ".join(f"{count} more of {kind}" for kind, count in counts.items())
        terminal.print_out(f"{label}and {more}")


def _confirm(home: Home, other: Home, *, yes: bool) -> None:
    """List every file that contains or names programs, and ask. Raises ReadtrackError if the reader does not
    agree.
    """
    planned = merge(home, other, write=False, code=True)
    code = [step for step in planned.steps if step.name.startswith(("plugins/", "places.yaml"))]
    for step in code:
        terminal.print_out(one_line(f"program  {step.name}: {step.what}"))
    if not code or yes:
        return
    if not sys.stdin.isatty():
        raise ReadtrackError("these are programs. Add --yes to merge them, or leave out --plugins.")
    sys.stderr.write("These files are programs that run with your rights. Merge them? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise ReadtrackError("nothing was written. Leave out --plugins to merge the rest.")
