"""The exercises of a plugin, parsed from its files without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.plugins.code import EXERCISES, files
from readtrack.plugins.find import NAMESPACE, PluginRef
from readtrack.text import nearest, one_line

_NAME = "EXERCISES"
_NONE = "NO_EXERCISES"  # why there are none, stated in the plugin's main file

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Sheet(NamedTuple):
    """The declaration of an exercise.

    file      the file that defines the function. module: its name within the plugin, "" for the plugin itself
    qualname  the function's name in that file, such as `LSTM.forward`
    """

    paper: str
    name: str
    of: str
    task: str
    hints: tuple[str, ...]
    file: Path
    module: str
    qualname: str

    @property
    def dotted(self) -> str:
        """The module to import."""
        return ".".join(filter(None, [NAMESPACE, self.paper, self.module]))


def has_exercises(plugin: PluginRef) -> bool:
    """Whether the plugin's text declares exercises."""
    main = Path(plugin.location)
    if plugin.origin == "installed":
        return any(_NAME in _text(file) for file in _declaring(plugin))
    return (
        main.with_name(EXERCISES).exists() if main.name == "__init__.py" else f"\n{_NAME} = " in _text(main)
    )


def sheets(plugin: PluginRef) -> list[Sheet]:
    """The plugin's exercises in order; [] if it declares none.

    Raises ReadtrackError with file and line for a malformed declaration.
    """
    for file in _declaring(plugin):
        tree = parsed(file)
        for node in tree.body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [_NAME]:
                return list(_declared(plugin, file, node.value))
    return []


def chosen(found: list[Sheet], name: str) -> Sheet:
    """The exercise with this name or number. Raises ReadtrackError."""
    if name.isdecimal() and 1 <= int(name) <= len(found):
        return found[int(name) - 1]
    for one in found:
        if one.name.casefold() == name.casefold():
            return one
    names = [one.name for one in found]
    there = f"the exercises are {', '.join(names)}"
    raise ReadtrackError(f"there is no exercise {name!r}; {nearest(name, names, there)}.")


def parsed(file: Path) -> ast.Module:
    """Parse the file. Raises ReadtrackError."""
    try:
        return _parsed(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise ReadtrackError(f"Could not read {file}: {error.strerror}.") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ReadtrackError(f"{file}{f':{line}' if line else ''}: {error}.") from error


@lru_cache(64)
def _parsed(file: Path, changed: int) -> ast.Module:
    return ast.parse(file.read_bytes())


def definition(tree: ast.Module, qualname: str) -> Definition | None:
    """The function or class with that name, which may be inside a class."""
    inside: list[ast.stmt] = tree.body
    node: Definition | None = None
    for part in qualname.split("."):
        node = next(
            (
                one
                for one in reversed(inside)  # the last definition counts
                if isinstance(one, Definition) and one.name == part
            ),
            None,
        )
        if node is None:
            return None
        inside = node.body
    return node


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _declaring(plugin: PluginRef) -> list[Path]:
    """The files that may declare exercises."""
    own = [file for file in files(plugin) if file.suffix == ".py"]
    return own if len(own) == 1 else [file for file in own if file.name == EXERCISES]


def _declared(plugin: PluginRef, file: Path, value: ast.expr) -> Iterator[Sheet]:
    if not isinstance(value, ast.Tuple | ast.List):
        raise ReadtrackError(f"{file}:{value.lineno}: {_NAME} must be a tuple of Exercise(...).")
    for call in value.elts:
        if not isinstance(call, ast.Call):
            raise ReadtrackError(f"{file}:{call.lineno}: this is not an Exercise(...).")
        given = {word.arg: word.value for word in call.keywords if word.arg}
        literals = {name: _literal(file, call, given, name) for name in ("name", "of", "task", "hints")}
        hints = literals["hints"] or ()
        if not isinstance(hints, tuple) or len(hints) > 3:
            raise ReadtrackError(f"{file}:{call.lineno}: hints must be a tuple of up to three strings.")
        name, of, task = (str(literals[part]) for part in ("name", "of", "task"))
        yield _located(plugin, file, call, Sheet(plugin.name, name, of, task, hints, file, "", of))


def _literal(file: Path, call: ast.Call, given: Mapping[str, ast.expr], name: str) -> object:
    if name not in given:
        if name == "hints":
            return ()
        raise ReadtrackError(f"{file}:{call.lineno}: the exercise has no {name}.")
    try:
        return ast.literal_eval(given[name])
    except ValueError:
        raise ReadtrackError(f"{file}:{given[name].lineno}: {name} must be a literal.") from None


def _located(plugin: PluginRef, file: Path, call: ast.Call, sheet: Sheet) -> Sheet:
    """The sheet with `file` set to the file that defines the function."""
    places = {_module(plugin, one): one for one in files(plugin) if one.suffix == ".py"}
    parts = sheet.of.split(".")
    for cut in range(len(parts) - 1, -1, -1):
        module, qualname = ".".join(parts[:cut]), ".".join(parts[cut:])
        if module in places and definition(parsed(places[module]), qualname) is not None:
            return sheet._replace(file=places[module], module=module, qualname=qualname)
    raise ReadtrackError(f"{file}:{call.lineno}: the plugin has no function {sheet.of}.")


def _module(plugin: PluginRef, file: Path) -> str:
    """The module's name within the plugin, such as "model", or "" for its main file."""
    main = next(one for one in files(plugin) if one.suffix == ".py" and _is_main(plugin, one))
    if file == main:
        return ""
    return ".".join(file.relative_to(main.parent).with_suffix("").parts)


def _is_main(plugin: PluginRef, file: Path) -> bool:
    if plugin.origin == "installed":
        return file.name == "__init__.py" or len(files(plugin)) == 1
    return str(file) == plugin.location


def exercises_of(paper: str, plugins: Mapping[str, PluginRef]) -> list[Sheet]:
    """The exercises of a paper. Raises NotAvailableError if it has none."""
    found = sheets(plugins[paper]) if paper in plugins else []
    if not found:
        why = _reason(plugins[paper]) if paper in plugins else ""
        raise NotAvailableError(
            f"{paper} has no exercises{f': {why}' if why else '.'} `readtrack next --practice` proposes one "
            "from another paper."
        )
    return found


def _reason(plugin: PluginRef) -> str:
    """Why the plugin has no exercises, from its main file, or ""."""
    for file in files(plugin):
        if file.suffix == ".py" and _is_main(plugin, file):
            for node in parsed(file).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == _NONE:
                    return one_line(str(ast.literal_eval(node.value)))
    return ""
