"""`readtrack data` manages real data sets, for runs with `--data NAME`. `readtrack weights` fetches released
weights.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from readtrack import signs
from readtrack.cli import terminal
from readtrack.datasets.catalogue import DataSet, catalogue
from readtrack.datasets.store import DataSets
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.text import counted, format_bytes, one_line

app = typer.Typer(rich_markup_mode=None)
group = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Fetch, add and check real data sets.")
app.add_typer(group, name="data")
weights = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Fetch released weights.")
app.add_typer(weights, name="weights")

_STEP = 0.01  # redraw the progress line after this fraction of a file


@group.command("list")
def list_data(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the known data sets and those in your home."""
    store = DataSets(Home())
    here = {name: store.find(name) for name in store.names()}
    rows = [
        {
            "name": known.name,
            "kind": known.kind,
            "size": known.size,
            "here": known.name in here,
            "licence": known.licence,
            "title": known.title,
        }
        for known in catalogue().values()
    ]
    rows += [
        {
            "name": one.name,
            "kind": one.kind,
            "size": one.size,
            "here": True,
            "licence": "",
            "title": "your own",
        }
        for one in here.values()
        if one.name not in catalogue()
    ]
    if as_json:
        terminal.print_json(rows)
        return
    cells = [
        (
            signs.PASSED if row["here"] else "",
            str(row["name"]),
            str(row["kind"]),
            format_bytes(int(str(row["size"]))),
            str(row["licence"]),
            str(row["title"]),
        )
        for row in rows
    ]
    terminal.table(cells, head=("here", "name", "kind", "size", "licence", "title"))


@group.command()
def get(
    names: Annotated[list[str], typer.Argument(help="Known data sets, see `readtrack data list`.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a large download.")] = False,
) -> None:
    """Fetch known data sets. An interrupted download resumes where it stopped."""
    for name in names:
        _fetch(_known(name), yes)


@group.command()
def add(
    name: Annotated[str, typer.Argument(help="A known data set, or a name of your own.")],
    source: Annotated[
        Path,
        typer.Option("--from", help="Its files, or a text file or folder of images or .wav files of yours."),
    ],
    kind: Annotated[
        Literal["images", "text", "speech"] | None, typer.Option(help="Kind of data in the folder.")
    ] = None,
) -> None:
    """Copy a data set that is on this machine into your home.

    The subfolders of your own folder are the labels. Two subfolders named images and masks hold images and
    their masks, in files of the same names. A mask is white on the foreground and black elsewhere.
    """
    if not source.exists():
        raise ReadtrackError(f"there is no {source}.")
    store, known = DataSets(Home()), catalogue().get(name)
    stored = store.add_known(known, source) if known else store.add_own(name, source, kind)
    terminal.print_out(
        f"{name} is here: {stored.kind}, {counted(len(stored.files), 'file')}, {format_bytes(stored.size)}."
    )


@group.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Data sets to check. Default: all.", show_default=False)
    ] = None,
) -> None:
    """Check every file against its SHA-256.

    Exit code 1 if one is missing or has changed.
    """
    store, failed = DataSets(Home()), False
    chosen = names or store.names()
    if not chosen:
        raise NotAvailableError("your home has no data sets. `readtrack data list` shows the known ones.")
    for name in chosen:
        problems = list(store.problems(name))
        failed = failed or bool(problems)
        for problem in problems:
            terminal.print_out(f"{signs.FAILED} {name}: {one_line(problem)}")
        if not problems:
            terminal.print_out(f"{signs.PASSED} {name}")
    if failed:
        raise typer.Exit(1)


@group.command()
def remove(names: Annotated[list[str], typer.Argument(help="Data sets to delete from your home.")]) -> None:
    """Delete data sets from your home. The originals of added files stay."""
    store = DataSets(Home())
    for name in names:
        terminal.print_out(f"{name} was removed: {format_bytes(store.remove(name))} freed.")


@weights.command("get")
def get_weights(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME[@REVISION]", help="Known weights, such as gpt2.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a large download.")] = False,
) -> None:
    """Fetch released weights: safetensors files only, checked by SHA-256.

    `readtrack data list` shows them; `data verify` and `data remove` take their names, too.
    """
    for asked in names:
        name, _, revision = asked.partition("@")
        known = _known(name)
        if known.kind != "weights":
            raise ReadtrackError(f"{name} is a data set. `readtrack data get {name}` fetches it.")
        if not known.revision.startswith(revision):
            raise ReadtrackError(
                f"there is no checksum of revision {revision!r} of {name}. Known: {known.revision}."
            )
        _fetch(known, yes)


def _fetch(known: DataSet, yes: bool) -> None:
    from readtrack.sync.clock import SyncCancelled
    from readtrack.sync.datasets import fetch

    terminal.print_err(
        f"{known.title}: {format_bytes(known.size)}, licence: {known.licence} ({known.homepage})"
    )
    if not yes and known.size > 1024**3 and sys.stdin.isatty() and not typer.confirm("Fetch it?"):
        raise NotAvailableError("nothing was fetched.")
    try:
        stored = fetch(Home(), known, progress=_Bar(), notice=terminal.print_err, cancel=threading.Event())
    except (KeyboardInterrupt, SyncCancelled):
        terminal.print_err("Stopped. The downloaded part is kept. Run the command again to continue.")
        raise KeyboardInterrupt from None
    terminal.print_out(
        f"{known.name} is here: {counted(len(stored.files), 'file')}, {format_bytes(stored.size)}."
    )


def _known(name: str) -> DataSet:
    known = catalogue().get(name)
    if known is None:
        raise ReadtrackError(f"there is no known data set {name!r}. Known: {', '.join(catalogue())}.")
    return known


class _Bar:
    """Progress on one line that is redrawn in place; nothing is printed if stderr is not a terminal."""

    def __init__(self) -> None:
        self._drawn = -1.0

    def __call__(self, file: str, here: int, size: int) -> None:
        share = here / size if size else 1.0
        if not sys.stderr.isatty() or (share < 1 and share - self._drawn < _STEP):
            return
        self._drawn = -1.0 if share >= 1 else share
        end = "\n" if share >= 1 else ""
        sys.stderr.write(f"\r{file}: {format_bytes(here)} of {format_bytes(size)} ({share:.0%})   {end}")
        sys.stderr.flush()
