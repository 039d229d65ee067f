"""Highlights the core of a paper's plugin: the object that its `implementation` returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readtrack.errors import ReadtrackError
from readtrack.plugins.find import PluginRef
from readtrack.plugins.source import files, implementation
from readtrack.svg import Drawn

if TYPE_CHECKING:
    from pygments.formatter import Formatter
    from pygments.lexer import Lexer

_MOST = 110  # lines


@dataclass(frozen=True, slots=True)
class Code:
    """Highlighted code. where: such as `adam/__init__.py, lines 20 to 64`. cut: number of lines omitted at
    the end.
    """

    where: str
    name: str
    html: Drawn
    cut: int


def code(plugin: PluginRef) -> Code | None:
    """The code of the plugin's implementation; None if its lines cannot be determined."""
    try:
        found = implementation(files(plugin))
        if found is None:
            return None
        file, node = found
        source = file.read_text(encoding="utf-8", errors="replace")
    except (OSError, ReadtrackError):
        return None
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = source.splitlines()[first - 1 : node.end_lineno]
    shown = lines[:_MOST]
    where = f"{_short(plugin, file)}, lines {first} to {first + len(shown) - 1}"
    return Code(where, node.name, highlighted("\n".join(shown)), len(lines) - len(shown))


def _short(plugin: PluginRef, file: Path) -> str:
    """The file's path below the plugin folder."""
    main = Path(plugin.location)
    base = main.parent.parent if main.name == "__init__.py" else main.parent
    return file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name


def highlighted(source: str) -> Drawn:
    from pygments import highlight

    return Drawn(highlight(source, *_painters()))


@cache
def _painters() -> tuple[Lexer, Formatter[Any]]:
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)
