"""`readtrack plugins`: lists, checks and creates the plugins that run papers."""

from __future__ import annotations

import fcntl
import importlib.util
import keyword
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import readtrack
from readtrack import interpreter, signs
from readtrack.cli import terminal
from readtrack.cli.library import run_folder
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home, write_text
from readtrack.plugins.find import PluginRef
from readtrack.text import counted, one_line, plain

_DIFF_COLOURS: dict[str, tuple[terminal.Style, ...]] = {"+": ("green",), "-": ("red",), "@": ("cyan",)}

app = typer.Typer(rich_markup_mode=None)
group = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List, check and create plugins (the code that runs papers).",
)
app.add_typer(group, name="plugins")


@group.command("list")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List plugins with their origin, their file and the plugins that they shadow."""
    from readtrack.plugins.find import find

    found = list(find(Home()).values())
    if as_json:
        terminal.print_json([asdict(plugin) for plugin in found])
        return
    if not found:
        raise NotAvailableError("no plugin was found. `readtrack plugins path` lists the folders searched.")
    rows = [
        (p.name, p.origin, p.location + (f"  (shadows {', '.join(p.shadows)})" if p.shadows else ""))
        for p in found
    ]
    terminal.table(rows, head=("name", "origin", "where"))


@group.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Plugins to check. Default: import every plugin.", show_default=False),
    ] = None,
    mutants: Annotated[
        bool,
        typer.Option("--mutants", help="Put mistakes into the experiments of the named plugins instead."),
    ] = False,
) -> None:
    """Import every plugin, or run all checks on the named ones.

    Each plugin runs in its own process. The checks cover short runs, null runs and breaks, and every
    benchmark variant in float64, bfloat16 and under autocast. Exit code 1 if a check fails, or if a mistake
    that --mutants puts into an experiment passes all of them.
    """
    from concurrent.futures import ThreadPoolExecutor

    from readtrack.plugins.check import check
    from readtrack.plugins.find import find

    interpreter.require_torch()
    home = Home()
    found = find(home)
    for name in names or []:
        if name not in found:
            raise ReadtrackError(f"there is no plugin {name!r}. `readtrack plugins list` shows all plugins.")
    chosen = [found[name] for name in names or found]
    if not chosen:
        raise NotAvailableError("no plugin was found. `readtrack plugins path` lists the folders searched.")
    if mutants and not names:
        raise ReadtrackError("--mutants takes minutes per plugin. Name the plugins to test.")
    if names:
        (_try_mutants if mutants else _check_all)([plugin.name for plugin in chosen], home)
        return
    broken = 0
    column = max(len(plugin.name) for plugin in chosen)
    # Each child imports torch. With more children than half the cores, they would only wait for each other.
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
        reasons = pool.map(lambda plugin: check(plugin.name, home), chosen)
        for plugin, reason in zip(chosen, reasons, strict=True):
            broken += reason is not None
            word = terminal.paint("ok    ", "green") if reason is None else terminal.paint("broken", "red")
            detail = plugin.location if reason is None else reason
            terminal.print_out(f"{plugin.name:<{column}}  {word}  {plugin.origin:<9}  {detail}".rstrip())
    if broken:
        terminal.print_err(f"readtrack: {broken} of {len(chosen)} plugins broken")
        raise typer.Exit(1)


def _check_all(names: list[str], home: Home) -> None:
    from readtrack.plugins.check import check_all

    failed = 0
    for name in names:
        outcomes = check_all(name, home)
        terminal.print_out(name)
        for what, why in outcomes:
            failed += bool(why)
            mark = terminal.paint(signs.FAILED, "red") if why else terminal.paint(signs.PASSED, "green")
            terminal.print_out(f"  {mark} {what}" + (f": {one_line(why)}" if why else ""))
    if failed:
        terminal.print_err(f"readtrack: {counted(failed, 'check')} failed")
        raise typer.Exit(1)


def _try_mutants(names: list[str], home: Home) -> None:
    from readtrack.plugins.check import mutants

    survived = 0
    for name in names:
        terminal.print_out(name)
        for what, fate, by in mutants(name, home):
            survived += fate == "survived"
            mark = {
                "survived": terminal.paint(signs.FAILED, "red"),
                "killed": terminal.paint(signs.PASSED, "green"),
            }.get(fate, "-")
            terminal.print_out(f"  {mark} {what}: {fate}" + (f" ({one_line(by)})" if by else ""))
    if survived:
        terminal.print_err(f"readtrack: {counted(survived, 'mistake')} that no check finds")
        raise typer.Exit(1)


@group.command()
def diff(
    name: Annotated[str, typer.Argument(help="The paper.", show_default=False)],
    run: Annotated[str, typer.Option(metavar="RUN", help="Show the edits that this run used.")] = "",
) -> None:
    """Show how your copy of a plugin differs from the shipped one.

    Exit code 3 if it does not differ.
    """
    from readtrack.plugins import edits

    home = Home()
    found = edits.load(run_folder(home, run)) if run else edits.of_plugin(_existing(home, name))
    if not found:
        raise NotAvailableError("this run used the shipped code." if run else f"{name} has no edits.")
    for edit in found:
        terminal.print_out(terminal.paint(f"{edit.file}  {edit.counts}", "bold"))
        for line in edit.diff():
            terminal.print_out(terminal.paint(plain(line), *_DIFF_COLOURS.get(line[:1], ())))


@group.command()
def revert(name: Annotated[str, typer.Argument(help="The paper.", show_default=False)]) -> None:
    """Move your copy of a plugin aside, so that the shipped one runs again."""
    from readtrack.plugins import source

    home = Home()
    plugin = _existing(home, name)
    if not source.is_own(plugin) or not plugin.shadows:
        raise NotAvailableError(f"you have no copy of {name}: it runs from {plugin.location}.")
    terminal.print_out(f"The shipped {name} runs again. Your copy is now {source.revert(plugin, home)}.")


def _existing(home: Home, name: str) -> PluginRef:
    from readtrack.plugins.find import find

    found = find(home).get(name)
    if found is None:
        raise ReadtrackError(f"there is no plugin {name!r}. `readtrack plugins list` shows all plugins.")
    return found


@group.command()
def path() -> None:
    """List the plugin folders. A plugin in an earlier folder shadows later ones."""
    from readtrack.plugins.find import folders

    home = Home()
    rows = [(str(origin), str(folder)) for origin, folder in folders(home)]
    if not home.plugins.is_dir():
        rows.insert(0, ("user", f"{home.plugins}  (does not exist yet)"))
    terminal.table(rows, head=("origin", "folder"))


@group.command()
def new(
    name: Annotated[str, typer.Argument(help="The paper's id: lower-case letters, digits and underscores.")],
    here: Annotated[
        bool, typer.Option("--here", help="Write to ./plugins and ./tests/papers of a checkout.")
    ] = False,
) -> None:
    """Create a working plugin for your own paper, and its test."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ReadtrackError(
            f"{name!r} is not a valid id: use lower-case letters, digits and '_', a letter first."
        )
    home = Home()
    root = Path.cwd() if here else home.root
    plugin = root / "plugins" / f"{name}.py"
    _refuse_taken(home, name, plugin)
    test = root / ("tests/papers" if here else "tests") / f"test_{name}.py"
    _write_both(home, name, plugin, test, checks=not here)
    terminal.print_out(str(plugin))
    terminal.print_out(str(test))
    terminal.print_err(f"Try it:    readtrack run {name}")
    terminal.print_err(f"Check it:  readtrack plugins check {name}")
    terminal.print_err(f"Test it:   {interpreter.path()} -m pytest {test}")
    terminal.print_err(f"Guide:     {_guide()}")
    if interpreter.is_own() and importlib.util.find_spec("pytest") is None:
        terminal.print_err(f"pytest is not installed. To install: {interpreter.install_command('test')}")


def _guide() -> Path:
    """The path of the guide for plugin authors. The build hook puts the guide into the wheel."""
    package = Path(readtrack.__file__).parent
    inside = package / "plugins.md"
    return inside if inside.exists() else package.parent / "docs" / "plugins.md"


def _refuse_taken(home: Home, name: str, new: Path) -> None:
    """Raise ReadtrackError if the name is taken. The message states which plugin would run, and what to
    do.
    """
    from readtrack.plugins.find import find

    there = find(home).get(name)
    if there is None:
        return
    exists = f"there is a {there.origin} plugin {name} already ({there.location}). Nothing was written."
    if there.origin == "user":
        undo = (
            f" `readtrack plugins revert {name}` makes {there.shadows[0]} run again." if there.shadows else ""
        )
        raise ReadtrackError(f"{exists} Edit it, or choose another name.{undo}")
    raise ReadtrackError(
        f"{exists} {_fate(home, new, there)} To edit a copy of it, select {name} in the app and press i, "
        "then e. For another paper, choose another name."
    )


def _fate(home: Home, new: Path, there: PluginRef) -> str:
    """A sentence that states whether the plugin `new` or the existing one would run."""
    from readtrack.plugins.find import folders

    order = [home.plugins.resolve(), *(folder.resolve() for _, folder in folders(home))]
    main = Path(there.location)
    theirs = (main.parent.parent if main.name == "__init__.py" else main.parent).resolve()
    folder = new.parent.resolve()
    if folder not in order:
        return f"A new one in {new.parent} would not run, as that is not a plugin folder."
    wins = folder != order[-1] if there.origin == "installed" else order.index(folder) < order.index(theirs)
    return "A new one would run in its place." if wins else "It would still run, and a new one would not."


def _write_both(home: Home, name: str, plugin: Path, test: Path, *, checks: bool) -> None:
    """Write the plugin and its test. Raises ReadtrackError if a file exists already or cannot be written.

    The plugin is written last. A test with the same text was left by a killed call and is replaced.

    checks  whether the test runs `plugins check`. In a checkout, tests/papers/test_every_plugin.py does so
    """

    def filled(template: str) -> str:
        text = (Path(__file__).parent / "templates" / template).read_text(encoding="utf-8")
        return text.replace("@NAME@", name)

    texts = {
        test: filled("test_plugin.py.txt") + (filled("test_checks.py.txt") if checks else ""),
        plugin: filled("plugin.py.txt"),
    }
    folder = os.open(home.ensure(plugin.parent), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for file, text in texts.items():
            if file.exists() and (file == plugin or file.read_text(encoding="utf-8") != text):
                raise ReadtrackError(f"{file} already exists; nothing was written.")
        for file, text in texts.items():
            home.ensure(file.parent)
            write_text(file, text)
    except OSError as error:
        raise ReadtrackError(
            f"Could not write to {plugin.parent} or {test.parent}: {error.strerror}."
        ) from error
    finally:
        os.close(folder)
