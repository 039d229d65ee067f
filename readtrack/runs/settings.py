"""Parse `--set name=value` and find the options that a plugin's experiment has."""

from __future__ import annotations

import ast
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import get_args

from readtrack.datasets.catalogue import SHIPPED, Kind
from readtrack.datasets.store import DataSets
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins.find import PluginRef
from readtrack.text import nearest, quoted

# Modules that use no options of a run.
_KNOWN = {*sys.stdlib_module_names, "readtrack", "torch", "numpy"}


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """Parse `["steps=100"]` into `{"steps": "100"}`. Raises ReadtrackError."""
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise ReadtrackError(f"--set {pair}: expected NAME=VALUE, such as --set steps=100.")
        settings[name.strip()] = text
    return settings


def of_data(home: Home, name: str) -> dict[str, str]:
    """`--data fashion-mnist` as a setting: `{"images": "fashion-mnist"}`. Empty without a name.

    Raises NotAvailableError if the data set is not on this machine.
    """
    if not name:
        return {}
    return {SHIPPED.get(name) or DataSets(home).find(name).kind: name}


def words(line: str) -> list[str]:
    """Split a line into pairs, quoted as in a shell. Raises ReadtrackError."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ReadtrackError(f"the settings end inside a quoted text: {line}") from error


def check(settings: Mapping[str, str], paper: str, plugins: Mapping[str, PluginRef]) -> None:
    """Raise ReadtrackError for a setting that no `run.option` in the paper's experiment uses."""
    if not settings or paper not in plugins:
        return
    known = options(paper, plugins)
    for name in settings:
        if known is not None and name not in known and name in get_args(Kind):
            others = [kind for kind in ("images", "text", "speech") if kind in known]
            raise ReadtrackError(
                f"{paper} takes no {name} from a data set. "
                + (
                    f"It takes {' or '.join(others)}; `readtrack data list` lists data sets."
                    if others
                    else "Leave out --data."
                )
            )
        if known is not None and name not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            hint = nearest(name, known, has)
            raise ReadtrackError(f"--set {name}: {paper} has no option {quoted(name)}; {hint}")


def options(paper: str, plugins: Mapping[str, PluginRef]) -> set[str] | None:
    """The option names in the plugin and the papers that it imports; None if they cannot be determined.

    The files are parsed, not imported, because a plugin's code runs only in a run.
    """
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [paper]
    has_experiment = False
    while waiting:
        name = waiting.pop()
        if name in seen or name not in plugins:
            continue
        seen.add(name)
        if plugins[name].origin == "installed":
            return None  # only importing it would locate its files
        for tree in _trees(Path(plugins[name].location)):
            names = _asked_for(tree)
            if names is None or (name == paper and _hands_on_the_run(tree)):
                return None
            found |= names
            has_experiment |= name == paper and any(
                isinstance(node, ast.FunctionDef) and node.name == "experiment" for node in ast.walk(tree)
            )
            waiting += _papers(tree)
    return found if has_experiment else None


def _trees(file: Path) -> Iterator[ast.Module]:
    for path in sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]:
        try:
            yield ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # importing it will report the error


def _asked_for(tree: ast.Module) -> set[str] | None:
    """The names in `....option("name", ...)`; None if a name is computed at run time."""
    names, calls = set(), 0
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="option"), args=[ast.Constant(value=str(name)), *_]):
                names.add(name)
                calls += 1
            case ast.Call(func=ast.Attribute(attr="source"), args=[ast.Constant(value=str(name)), *_]):
                names.add(name)  # --set images=NAME, or --data NAME
    mentions = sum(isinstance(node, ast.Attribute) and node.attr == "option" for node in ast.walk(tree))
    return names if mentions == calls else None


def _hands_on_the_run(tree: ast.Module) -> bool:
    """Whether `run` is passed to a function imported from elsewhere, which was not searched."""
    outside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                module = alias.name if isinstance(node, ast.Import) else (node.module or "")
                own = isinstance(node, ast.ImportFrom) and node.level > 0
                if not own and module.partition(".")[0] not in _KNOWN:
                    outside.add((alias.asname or alias.name).partition(".")[0])
    return any(
        isinstance(node, ast.Call)
        and _root(node.func) in outside
        and any(isinstance(argument, ast.Name) and argument.id == "run" for argument in node.args)
        for node in ast.walk(tree)
    )


def _root(function: ast.expr) -> str:
    while isinstance(function, ast.Attribute):
        function = function.value
    return function.id if isinstance(function, ast.Name) else ""


def _papers(tree: ast.Module) -> list[str]:
    """Imported names that may be papers: `from .attention import ...`, `from . import attention`."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").removeprefix("readtrack.papers").strip(".")
            if node.level or (node.module or "").startswith("readtrack.papers"):
                found += [module.partition(".")[0]] if module else [alias.name for alias in node.names]
    return found
