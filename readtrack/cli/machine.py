"""`readtrack devices`, `calibrate` and `doctor`: list this machine's devices, measure them, and check the
installation.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from readtrack import __version__, interpreter
from readtrack.cli import terminal
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.text import counted, format_bytes, one_line

app = typer.Typer(rich_markup_mode=None)

_PACKAGES = ("textual", "typer", "arxiv")
_FOR_RUNS = ("torch", "numpy", "scikit-learn", "jaxtyping")
# This program runs in the Python that runs papers. It looks up versions without importing the packages.
_WHAT_IS_THERE = """
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
found = {"Python": platform.python_version()}
for name in ("readtrack", *sys.argv[1:]):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""
_HANGING = 19  # columns before a finding's text
# Whether the check passed (None: the reader has to judge), the topic, and the text.
_Finding = tuple[bool | None, str, str]
_SIGNS: dict[bool | None, tuple[str, terminal.Style]] = {
    True: ("ok   ", "green"),
    None: ("look ", "yellow"),
    False: ("wrong", "red"),
}


@app.command()
def devices(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the devices that a run can use.

    `--device auto` uses the first one.
    """
    found = _available()
    if as_json:
        terminal.print_json(found)
        return
    rows = [
        (d["name"], format_bytes(d["memory_bytes"]) if d["memory_bytes"] else "", one_line(d["description"]))
        for d in found
    ]
    terminal.table(rows, head=("device", "memory", "description"))


def _available() -> list[dict[str, Any]]:
    """The devices of the Python that runs papers, as dictionaries."""
    if not interpreter.is_own():
        return _asked()
    from readtrack.devices import available

    return [asdict(device) for device in available()]


def _asked() -> list[dict[str, Any]]:
    """The devices, from a separate process, because importing a broken torch can crash it."""
    environment = {name: value for name, value in os.environ.items() if name != interpreter.VARIABLE}
    command = [interpreter.path(), "-P", "-m", "readtrack", "devices", "--json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        if done.returncode == 0:
            found: list[dict[str, Any]] = json.loads(done.stdout)
            return found
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ReadtrackError(f"the devices could not be listed: {error}") from error
    lines = done.stderr.strip().splitlines() or [f"the process ended with exit code {done.returncode}"]
    last = one_line(lines[-1]).removeprefix("readtrack: ")
    kind = NotAvailableError if done.returncode == NotAvailableError.exit_code else ReadtrackError
    raise kind(f"the devices could not be listed: {last}")


@app.command()
def calibrate(
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a device's peak compute and memory rates.

    Benchmarks are reported as a percentage of these rates. This takes about 20 seconds; run it while the
    machine is idle.
    """
    from readtrack.bench import ceilings

    terminal.print_err("Measuring for about 20 seconds ...")
    found = ceilings.calibrate(Home(), device=device)
    if as_json:
        terminal.print_json(asdict(found))
        return
    threads = f", {found.threads} threads" if found.threads else ""
    rows = [("device", f"{found.device} ({one_line(found.device_name)}){threads}")]
    rows += [(dtype, f"{rate / 1e9:.4g} GFLOP/s") for dtype, rate in found.flops.items()]
    rows += [
        ("memory", f"{found.copy / 1e9:.3g} GB/s copied, {found.read / 1e9:.3g} GB/s read"),
        ("cache", f"{found.cache_copy / 1e9:.3g} GB/s copied, {found.cache_read / 1e9:.3g} GB/s read"),
        ("one call", f"{found.launch_ns / 1e3:.3g} µs"),
    ]
    terminal.table(rows, head=("rate", "best value"))
    if found.contended:
        terminal.print_err(
            "readtrack: other programs used the machine, so these rates may be too low "
            "and were not saved. Try again when it is idle"
        )


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired automatically.")] = False,
) -> None:
    """Check the installation and your files.

    Checks versions, every file in the home, plugins, devices and the terminal. Exit code 1 if there is a
    problem. --fix deletes none of your data: unusable files are moved to READTRACK_HOME/set-aside.
    """
    home = Home()
    wrong = _mend(home) if fix else 0
    for look in (_versions, _home, _keys, _library, _plugins, _runs, _terminal):
        for well, topic, text in look(home):
            wrong += well is False
            sign = terminal.paint(*_SIGNS[well])
            columns = terminal.width()
            first, *rest = terminal.wrap(one_line(text), None if columns is None else columns - _HANGING)
            terminal.print_out(f"{sign}  {topic:<10}  {first}")
            for line in rest:
                terminal.print_out(" " * _HANGING + line)
    if wrong:
        terminal.print_err(f"readtrack: {counted(wrong, 'problem')} found")
        raise typer.Exit(1)


def _mend(home: Home) -> int:
    """Repair the findings that can be repaired, and return the number of failed repairs."""
    from readtrack.library import Library
    from readtrack.upkeep import findings

    failed = 0
    for finding in list(findings(Library.open(home))):
        if finding.mend is None:
            continue
        try:
            finding.mend()
        except (OSError, ReadtrackError) as error:
            failed += 1
            terminal.print_out(one_line(f"not fixed  {finding.topic:<9}  {finding.text}: {error}"))
        else:
            terminal.print_out(one_line(f"fixed  {finding.topic:<9}  {finding.text}: {finding.fix}"))
    return failed


def _keys(home: Home) -> Iterator[_Finding]:
    from readtrack.present.keymap import read

    for problem in read(home.keys_yaml)[1]:
        yield False, "keys", problem


def _versions(home: Home) -> Iterator[_Finding]:
    from importlib.metadata import PackageNotFoundError, version

    yield True, "readtrack", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    for package in _PACKAGES:
        try:
            yield True, package, version(package)
        except PackageNotFoundError:
            yield False, package, f"not installed: `{sys.executable} -m pip install {package}`"


def _home(home: Home) -> Iterator[_Finding]:
    """Check that the home folder is writable. Creates no folder, because that would hide a wrong HOME."""
    root, there = home.root, home.root
    while not there.exists() and there != there.parent:
        there = there.parent
    if why := _refusal(there):
        where = "it" if there == root else str(there)
        text = f"{root}: {where} is not writable ({why}). Set READTRACK_HOME to a folder that is."
        yield False, "home", text
    elif there == root:
        yield True, "home", str(root)
    elif os.environ.get("READTRACK_HOME") or Path.home().is_dir():
        yield True, "home", f"{root}: does not exist yet; readtrack creates it when it first saves something"
    else:
        yield False, "home", f"{root}: your home folder {Path.home()} does not exist. Set READTRACK_HOME."


def _refusal(folder: Path) -> str:
    """The reason why no file can be written to the folder, "" if one can. Writes an unnamed temporary file,
    because the permission bits are not reliable, least of all for root.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
        return ""
    except OSError as error:
        return error.strerror or str(error)


def _library(home: Home) -> Iterator[_Finding]:
    from readtrack.library import Library
    from readtrack.upkeep import findings

    try:
        library = Library.open(home)
        yield True, "papers", f"{library.list_path}: {counted(len(library.listed), 'paper')}"
    except ReadtrackError as error:
        yield False, "papers", str(error)
        return
    for finding in findings(library):
        if finding.topic != "journal":  # reported line by line below
            if finding.mend:
                yield False, finding.topic, f"{finding.text}; `readtrack doctor --fix`: {finding.fix}"
            else:
                yield None, finding.topic, f"{finding.text}; {finding.fix}"
    for problem in library.problems:
        yield False, "files", problem
    if not library.problems:
        yield True, "journal", f"{home.journal}{'' if home.journal.exists() else ': nothing marked yet'}"


def _plugins(home: Home) -> Iterator[_Finding]:
    from readtrack.plugins.edits import of_plugin, summary
    from readtrack.plugins.find import find, problems

    found = find(home)
    own = [plugin for plugin in found.values() if plugin.origin != "shipped"]
    yield bool(found), "plugins", f"{len(found)} found, {len(own)} of them your own"
    for plugin in own:
        if plugin.shadows:
            edited = summary(plugin.name, of_plugin(plugin)) or "without changes"
            undo = f"`readtrack plugins revert {plugin.name}`" if plugin.origin == "user" else plugin.location
            yield None, "plugins", f"{plugin.name} runs in place of the shipped one ({edited}): {undo}"
    for problem in problems(home):
        yield False, "plugins", problem


def _imports(home: Home) -> Iterator[_Finding]:
    """Check that your own plugins can be imported. Shipped plugins are left out, because importing them takes
    seconds.
    """

    from readtrack.plugins.check import check
    from readtrack.plugins.find import find

    for plugin in find(home).values():
        if plugin.origin != "shipped":
            reason = check(plugin.name, home)
            yield reason is None, "plugin", f"{plugin.name} ({plugin.location}): {reason or 'imports'}"


def _runs(home: Home) -> Iterator[_Finding]:
    """Check the Python that runs papers: its packages, its devices, and whether it can import your
    plugins.
    """
    try:
        python, install = interpreter.path(), interpreter.install_command()
    except ReadtrackError as error:
        yield False, "runs", str(error)
        return
    own = interpreter.is_own()
    whose = python if own else f"{python} (from {interpreter.VARIABLE})"
    command = [python, "-P", "-c", _WHAT_IS_THERE, *_FOR_RUNS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        found: dict[str, str | None] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        yield False, "runs", f"{whose} is not a working Python 3.11 or newer"
        return
    versions = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if not own and found["readtrack"] != __version__:
        yield False, "runs", f"{whose}: {versions}; it needs readtrack {__version__}: {install}"
    elif missing := [name for name in _FOR_RUNS if not found[name]]:
        # A reader who only keeps a list needs no such packages, unless they set another Python.
        text = f"{whose} has no {', '.join(missing)}, so papers cannot be run. To install: {install}"
        yield own, "runs", text
    else:
        yield True, "runs", f"{whose}: {versions}"
        try:
            devices = _asked()
            for device in devices:
                yield True, "device", f"{device['name']}: {device['description']}"
            if gpu := _unused_gpu({device["name"].partition(":")[0] for device in devices}):
                yield False, "device", gpu
        except ReadtrackError as error:
            yield False, "device", str(error)
        yield from _imports(home)


def _unused_gpu(kinds: set[str], system: Path = Path("/")) -> str:
    """Advice if the system has a GPU driver but PyTorch does not see the GPU; "" otherwise."""
    drivers = {"an NVIDIA GPU": "proc/driver/nvidia/version", "an AMD GPU": "dev/kfd"}
    there = next((gpu for gpu, file in drivers.items() if (system / file).exists()), "")
    if not there or "cuda" in kinds:
        return ""
    return (
        f"this machine has a driver for {there}, but this PyTorch was built for CPUs or for another driver. "
        "`uv pip install torch --reinstall --torch-backend auto` installs one that fits"
    )


def _terminal(home: Home) -> Iterator[_Finding]:
    encoding = sys.stdout.encoding
    term = os.environ.get("TERM", "not set")
    columns = terminal.width()
    yield True, "terminal", f"TERM {term}, {f'{columns} columns' if columns else 'a pipe'}, {encoding}"
    if "utf" not in encoding.lower():
        yield False, "locale", f"{encoding} cannot show every title; set LANG to a UTF-8 locale (C.UTF-8)"
