"""A plugin's source code for display and editing: its files, the location of its hooks, the reader's copy.

The files are parsed, not imported, because a plugin's code runs only in a run.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.plugins.edits import of_plugin
from readtrack.plugins.find import PluginRef

HOOKS = ("implementation", "experiment", "benchmark")
Definition = ast.ClassDef | ast.FunctionDef


class CodeLine(NamedTuple):
    """A line of a file, counted from 1."""

    file: Path
    line: int


def files(plugin: PluginRef) -> list[Path]:
    """The plugin's Python files, the one with the hooks first.

    Raises NotAvailableError for an installed plugin, which only an import can locate.
    """
    if plugin.origin == "installed":
        raise NotAvailableError(
            f"{plugin.name} is installed as {plugin.location}; see that package for its code."
        )
    main = Path(plugin.location)
    if main.name != "__init__.py":
        return [main]
    rest = sorted(path for path in main.parent.rglob("*.py") if path != main)
    return [main, *rest]


def places(found: Sequence[Path]) -> dict[str, CodeLine]:
    """The location of each hook; for `implementation`, of the returned object if it is in these files."""
    hooks: dict[str, CodeLine] = {}
    for path, node in _definitions(found, HOOKS):
        if isinstance(node, ast.FunctionDef):
            hooks.setdefault(node.name, CodeLine(path, node.lineno))
    if idea := implementation(found):
        hooks["implementation"] = CodeLine(idea[0], idea[1].lineno)
    return {name: hooks[name] for name in HOOKS if name in hooks}


def implementation(found: Sequence[Path]) -> tuple[Path, Definition] | None:
    """The object that the hook `implementation` returns, and its file; None if it is not in these files."""
    for _, node in _definitions(found, ("implementation",)):
        if isinstance(node, ast.FunctionDef) and (named := _returned(node)):
            return next(_definitions(found, (named,)), None)
    return None


def _definitions(found: Sequence[Path], names: Sequence[str]) -> Iterator[tuple[Path, Definition]]:
    """The classes and functions of these names. To save time, a file without any is not parsed."""
    mentioned = re.compile(rf"^(?:class|def) (?:{'|'.join(names)})\b".encode(), re.MULTILINE)
    for path in found:
        try:
            source = path.read_bytes()
            body = ast.parse(source).body if mentioned.search(source) else []
        except (OSError, SyntaxError, ValueError):
            continue  # the file is shown as it is
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in names:
                yield path, node


def _returned(function: ast.FunctionDef) -> str:
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
            return node.value.id
    return ""


def is_own(plugin: PluginRef) -> bool:
    """Whether the plugin is in the reader's own folder, and so may be changed."""
    return plugin.origin == "user"


def own_copy(plugin: PluginRef, home: Home) -> Path:
    """Copy the plugin into the reader's folder, where it shadows the original. Return its main file there.

    A plugin that is already there is not copied. Raises ReadtrackError if it cannot be copied.
    """
    main = files(plugin)[0]
    if is_own(plugin):
        return main
    home.ensure(home.plugins)
    source = _root(plugin)
    target = home.plugins / source.name
    if target.exists():
        raise ReadtrackError(f"{target} already exists and is not a plugin. Move it first.")
    try:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise ReadtrackError(f"Could not copy {source} to {target}: {error.strerror}.") from error
    return target / main.name if source.is_dir() else target


def drop_unchanged_copy(plugin: PluginRef) -> None:
    """Delete the reader's copy if it equals the plugin that it shadows."""
    if is_own(plugin) and plugin.shadows and not of_plugin(plugin):
        _remove(_root(plugin))


def revert(plugin: PluginRef, home: Home) -> Path:
    """Move the reader's copy to `set-aside/plugins`, so that the original runs again. Return its new path.

    Raises ReadtrackError if it cannot be moved.
    """
    try:
        return home.set_aside(_root(plugin))
    except OSError as error:
        raise ReadtrackError(f"Could not move {_root(plugin)}: {error.strerror}.") from error


def _root(plugin: PluginRef) -> Path:
    """The file or folder of a plugin."""
    main = Path(plugin.location)
    return main.parent if main.name == "__init__.py" else main


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
