"""`--set name=value`: how settings are written, and which of them a plugin's experiment asks for."""

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

# Modules that ask a run for no option.
_KNOWN = {*sys.stdlib_module_names, "readtrack", "torch", "numpy"}


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """`["steps=100"]` as `{"steps": "100"}`. Raises ReadtrackError."""
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise ReadtrackError(f"--set {pair}: expected NAME=VALUE, such as --set steps=100.")
        settings[name.strip()] = text
    return settings


def of_data(home: Home, name: str) -> dict[str, str]:
    """`--data fashion-mnist` as a setting: `{"images": "fashion-mnist"}`. Empty for no name.

    Raises NotAvailableError if the data set is not here.
    """
    if not name:
        return {}
    return {SHIPPED.get(name) or DataSets(home).find(name).kind: name}


def words(line: str) -> list[str]:
    """The pairs on one line, quoted as in a shell. Raises ReadtrackError."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ReadtrackError(f"the settings end inside a quoted text: {line}") from error


def check(settings: Mapping[str, str], paper: str, plugins: Mapping[str, PluginRef]) -> None:
    """Raises ReadtrackError for a setting that no `run.option` of the paper's experiment asks for."""
    if not settings or paper not in plugins:
        return
    known = options(paper, plugins)
    for name in settings:
        if known is not None and name not in known and name in get_args(Kind):
            raise ReadtrackError(f"{paper} takes no {name} from a data set. Leave out --data.")
        if known is not None and name not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            hint = nearest(name, known, has)
            raise ReadtrackError(f"--set {name}: {paper} has no option {quoted(name)}; {hint}")


def options(paper: str, plugins: Mapping[str, PluginRef]) -> set[str] | None:
    """The names that the plugin, or a paper that it imports, gives to `run.option`; None where they cannot be
    told. The files are read, not imported: a plugin's code runs in a run only.
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
            return None  # where its files are, only an import can say
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
            continue  # importing it will say what is wrong


def _asked_for(tree: ast.Module) -> set[str] | None:
    """What stands in `....option("name", ...)`; None where a name is made while the experiment runs."""
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
    """Names that may be those of papers: `from .attention import ...`, `from . import attention`."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").removeprefix("readtrack.papers").strip(".")
            if node.level or (node.module or "").startswith("readtrack.papers"):
                found += [module.partition(".")[0]] if module else [alias.name for alias in node.names]
    return found
