"""`readtrack places`: lists and checks the reader's other machines, and fetches events of their runs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from readtrack import __version__, signs
from readtrack.cli import terminal
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.places import place as places
from readtrack.text import format_bytes, one_line

app = typer.Typer(rich_markup_mode=None)
group = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Manage other machines that can run papers."
)
app.add_typer(group, name="places")

_SKEW = 5.0  # seconds by which two clocks may differ before a warning
_PATIENCE = 30.0  # seconds that `fetch` waits for new events from a place


@group.command("list")
def list_places(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the places in places.yaml without connecting to them."""
    home = Home()
    found = places.load(home)
    if as_json:
        terminal.print_json([asdict(one) for one in found.values()])
        return
    if not found:
        raise NotAvailableError(
            f"{places.file(home)} has no places. Add one: `readtrack places add NAME --host HOST`."
        )
    rows = [(one.name, one.kind, one.where, one.python) for one in found.values()]
    terminal.table(rows, head=("name", "kind", "where", "python"))


@group.command()
def add(
    name: Annotated[str, typer.Argument(help="Your name for the place.")],
    host: Annotated[str, typer.Option(help="A host from your ssh configuration.")] = "",
    python: Annotated[str, typer.Option(help="The Python there, with readtrack and PyTorch.")] = "",
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit each run as a SLURM job on the host.")
    ] = False,
    scheduler: Annotated[str, typer.Option(help="The address of a Dask scheduler, tls://HOST:PORT.")] = "",
    home_there: Annotated[str, typer.Option("--home", help="The folder for runs there.")] = "",
) -> None:
    """Add a place to places.yaml."""
    home = Home()
    kind = "dask" if scheduler else "slurm" if slurm else "ssh"
    if kind == "ssh" and not host:
        raise ReadtrackError("a place needs --host HOST, --slurm or --scheduler ADDRESS.")
    given = {"kind": kind, "host": host, "python": python, "home": home_there, "scheduler": scheduler}
    places.add(home, name, {key: value for key, value in given.items() if value})
    _warn(places.find(home, name))
    terminal.print_out(
        f"{name} was added to {places.file(home)}. "
        f"`readtrack places check {name}` tests whether it can run papers."
    )


def _warn(place: places.Place) -> None:
    if place.is_open:
        terminal.print_err(
            f"{place.name}: {place.scheduler} is not encrypted, and anyone who can reach it can run code on "
            "its workers and on this machine. Use tls:// (see README, Another machine)."
        )


@group.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Places to check. Default: all.", show_default=False)
    ] = None,
) -> None:
    """Connect to each place and report what is missing.

    Exit code 1 if a place cannot run papers.
    """
    from readtrack.places.errors import Unreachable
    from readtrack.places.link import connect

    home = Home()
    chosen = [places.find(home, name) for name in names or places.load(home)]
    if not chosen:
        raise NotAvailableError(f"{places.file(home)} has no places.")
    failed = False
    for one in chosen:
        _warn(one)
        try:
            link = connect(one)
            try:
                said, _ = link.call({"do": "hello"})
            finally:
                link.close()
        except (Unreachable, ReadtrackError) as error:
            failed = True
            terminal.print_out(f"{signs.FAILED} {one.name}: {one_line(str(error))}")
            continue
        missing = [] if said["torch"] else ["run"]
        if one.kind == "slurm" and not said["submitit"]:
            missing.append("slurm")
        skew = said["clock"] - time.time()
        failed = failed or bool(missing)
        mark = signs.FAILED if missing else signs.PASSED
        terminal.print_out(
            f"{mark} {one.name}: {one_line(said['host'])}, readtrack {one_line(said['readtrack'])}, "
            f"Python {one_line(said['python'])}, {format_bytes(said['free'])} free: {one_line(said['root'])}"
        )
        if missing:
            command = f"{one.python} -m pip install '.[{','.join(missing)}]'"
            terminal.print_out(
                f"    to install what is missing, in a clone of readtrack {__version__} there: {command}"
            )
        if abs(skew) > _SKEW:
            terminal.print_out(f"    its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}")
    if failed:
        raise typer.Exit(1)


@group.command()
def fetch() -> None:
    """Fetch new events of runs on other machines. The runs continue."""
    from readtrack.places import process

    folders = process.unfinished(Home())
    if not folders:
        raise NotAvailableError("no run is in progress on another machine.")
    found = []
    for folder in folders:
        try:
            one = process.attach(folder)
        except ReadtrackError as error:
            terminal.print_err(str(error))
        else:
            found += [one] if one is not None else []
    deadline = time.monotonic() + _PATIENCE
    sizes: dict[str, int] = {}
    while time.monotonic() < deadline and any(one.poll() is None for one in found):
        grown = {one.run_id: one.size() for one in found}
        if grown != sizes:
            sizes, deadline = grown, max(deadline, time.monotonic() + 2.0)
        elif all(one.heard for one in found if one.outcome is None):
            break
        time.sleep(0.5)
    rows = [
        (one.run_id, one.place.name, one.poll() or one_line(one.contact) or "runs", format_bytes(one.size()))
        for one in found
    ]
    for one in found:
        one.detach()
    terminal.table(rows, head=("run", "place", "state", "events"))
