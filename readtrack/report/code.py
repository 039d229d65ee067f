"""The lines of a paper's plugin that are the paper: what its `implementation` returns, with highlighting."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from readtrack.errors import ReadtrackError
from readtrack.plugins.find import PluginRef
from readtrack.plugins.source import files, places
from readtrack.svg import Drawn

_MOST = 110  # lines


@dataclass(frozen=True, slots=True)
class Code:
    """where: `adam/__init__.py, lines 20 to 64`. cut: lines that are left out at the end."""

    where: str
    name: str
    html: Drawn
    cut: int


def code(plugin: PluginRef) -> Code | None:
    """None where nothing says which lines they are."""
    try:
        found = places(files(plugin)).get("implementation")
        if found is None:
            return None
        source = found.file.read_text(encoding="utf-8", errors="replace")
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, ReadtrackError):
        return None
    node = next((node for node in tree.body if getattr(node, "lineno", 0) == found.line), None)
    if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name == "implementation":
        return None
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last = node.end_lineno or first
    lines = source.splitlines()[first - 1 : last]
    shown = lines[:_MOST]
    where = f"{_short(plugin, found.file)}, lines {first} to {first + len(shown) - 1}"
    return Code(where, node.name, highlighted("\n".join(shown)), len(lines) - len(shown))


def _short(plugin: PluginRef, file: Path) -> str:
    """The file below the folder of plugins."""
    main = Path(plugin.location)
    base = main.parent.parent if main.name == "__init__.py" else main.parent
    return file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name


def highlighted(source: str) -> Drawn:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Drawn(highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)))
