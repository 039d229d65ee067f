"""`readtrack devices` and `readtrack doctor`: what this machine has, and what is wrong with the set-up."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from readtrack import __version__
from readtrack.cli import terminal
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.text import one_line, size

app = typer.Typer(rich_markup_mode=None)

_PACKAGES = ("torch", "numpy", "textual", "typer", "arxiv")
_HANGING = 19  # columns before a finding's text
# Whether it is well, what it is about, what there is to say.
_Finding = tuple[bool, str, str]


@app.command()
def devices(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """The devices that a run can use.

    The first is the one that `--device auto` takes.
    """
    from readtrack.devices import available

    found = available()
    if as_json:
        terminal.say_json([asdict(device) for device in found])
        return
    rows = [(d.name, size(d.memory_bytes) if d.memory_bytes else "", one_line(d.description)) for d in found]
    terminal.table(rows, head=("device", "memory", "what it is"))


@app.command()
def calibrate(
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Measure what a device can attain at most.

    Benchmarks are set against it as a percentage of the ceiling. Takes about 20 seconds; do it when the
    machine has nothing else to do.
    """
    from readtrack.bench import ceilings

    terminal.tell("Measuring for about 20 seconds ...")
    found = ceilings.calibrate(Home(), device=device)
    if as_json:
        terminal.say_json(asdict(found))
        return
    threads = f", {found.threads} threads" if found.threads else ""
    rows = [("device", f"{found.device} ({one_line(found.device_name)}){threads}")]
    rows += [(dtype, f"{rate / 1e9:.4g} GFLOP/s") for dtype, rate in found.flops.items()]
    rows += [
        ("memory", f"{found.copy / 1e9:.3g} GB/s copied, {found.read / 1e9:.3g} GB/s read"),
        ("cache", f"{found.cache_copy / 1e9:.3g} GB/s copied, {found.cache_read / 1e9:.3g} GB/s read"),
        ("one call", f"{found.launch_ns / 1e3:.3g} µs"),
    ]
    terminal.table(rows, head=("what", "best seen"))
    if found.contended:
        terminal.tell(
            "readtrack: something else was using the machine, so these rates may be low "
            "and were not kept: try again when it is idle"
        )


@app.command()
def doctor() -> None:
    """Look for what is wrong with the set-up.

    Versions, files, plugins, devices, the terminal. Exit code 1 if something is wrong.
    """
    home = Home()
    wrong = 0
    for look in (_versions, _home, _library, _plugins, _devices, _terminal):
        for well, topic, text in look(home):
            wrong += not well
            sign = terminal.paint("ok   ", "green") if well else terminal.paint("wrong", "red")
            columns = terminal.width()
            first, *rest = terminal.wrap(one_line(text), None if columns is None else columns - _HANGING)
            terminal.say(f"{sign}  {topic:<10}  {first}")
            for line in rest:
                terminal.say(" " * _HANGING + line)
    if wrong:
        terminal.tell(f"readtrack: {wrong} thing{'s' if wrong > 1 else ''} to put right")
        raise typer.Exit(1)


def _versions(home: Home) -> Iterator[_Finding]:
    from importlib.metadata import PackageNotFoundError, version

    yield True, "readtrack", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    for package in _PACKAGES:
        try:
            yield True, package, version(package)
        except PackageNotFoundError:
            yield False, package, f"not installed: `{sys.executable} -m pip install {package}`"


def _home(home: Home) -> Iterator[_Finding]:
    try:
        home.ensure()
    except ReadtrackError as error:
        yield False, "home", str(error)
        return
    writable = os.access(home.root, os.W_OK)
    yield writable, "home", f"{home.root}{'' if writable else ': cannot be written to'}"


def _library(home: Home) -> Iterator[_Finding]:
    from readtrack.catalog import locate
    from readtrack.library import Library

    try:
        library = Library.open(home)
        yield True, "papers", f"{locate(home)}: {len(library.catalog.papers)} papers"
    except ReadtrackError as error:
        yield False, "papers", str(error)
        return
    for problem in library.problems:
        yield False, "files", problem
    if not library.problems:
        yield True, "journal", f"{home.journal}{'' if home.journal.exists() else ': nothing marked yet'}"


def _plugins(home: Home) -> Iterator[_Finding]:
    """All are counted; only those that did not come with readtrack are imported, as that takes seconds."""
    from readtrack import discovery

    found = discovery.find(home)
    own = [plugin for plugin in found.values() if plugin.origin != "shipped"]
    yield bool(found), "plugins", f"{len(found)} found, {len(own)} of them your own"
    for problem in discovery.problems(home):
        yield False, "plugins", problem
    for plugin in own:
        reason = discovery.check(plugin.name, home)
        yield reason is None, "plugin", f"{plugin.name} ({plugin.location}): {reason or 'imports'}"


def _devices(home: Home) -> Iterator[_Finding]:
    """Asked in a child: a torch that breaks at import must not take the doctor with it."""
    command = [sys.executable, "-m", "readtrack", "devices", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        for device in json.loads(done.stdout):
            yield True, "device", f"{device['name']}: {device['description']}"
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"ended with {error.returncode}"]
        yield False, "device", f"could not be asked for: {lines[-1]}"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        yield False, "device", f"could not be asked for: {error}"


def _terminal(home: Home) -> Iterator[_Finding]:
    encoding = sys.stdout.encoding
    term = os.environ.get("TERM", "not set")
    columns = terminal.width()
    yield True, "terminal", f"TERM {term}, {f'{columns} columns' if columns else 'a pipe'}, {encoding}"
    if "utf" not in encoding.lower():
        yield False, "locale", f"{encoding} cannot show every title; set LANG to a UTF-8 one, such as C.UTF-8"
