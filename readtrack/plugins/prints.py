"""A fingerprint of a run's code: a hash per statement, enough to tell which statements differ from another
run's.

A run stores them in `code.json`. The hashes do not reveal the code. Changes without effect on results do not
change a hash: comments, docstrings, formatting, quotations from the paper and exercises.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from readtrack import regular
from readtrack.home import write_text
from readtrack.plugins.code import EXERCISES, closure, meaning
from readtrack.plugins.edits import texts
from readtrack.plugins.find import PluginRef
from readtrack.text import counted, one_line

_FILE = "code.json"
_LARGEST = 4 << 20  # size limit of a code.json, in bytes
_NAMED = 5  # maximum number of places that a difference names
_SAVED = re.compile(r"(\d{1,6})-(\d{1,6}):([0-9a-f]{8})")


class Statement(NamedTuple):
    """A statement's first and last line, counted from 1, and its hash. For a block, they describe its
    header.
    """

    first: int
    last: int
    hash: str

    def __str__(self) -> str:
        return f"{self.first}-{self.last}:{self.hash}"


Prints = dict[str, list[Statement]]


class Change(NamedTuple):
    """A range of lines that differs. there, here: its first and last line, or None if it is missing."""

    file: str
    there: tuple[int, int] | None
    here: tuple[int, int] | None

    def __str__(self) -> str:
        if self.here:
            return f"{self.file}, {_lines(self.here)}"
        return f"{self.file}, {_lines(self.there or (0, 0))} there, not here"


def _lines(span: tuple[int, int]) -> str:
    return f"line {span[0]}" if span[0] == span[1] else f"lines {span[0]} to {span[1]}"


def of_paper(
    paper: str, plugins: Mapping[str, PluginRef], builds_on: Mapping[str, tuple[str, ...]]
) -> Prints:
    """The hashes of the paper's files and those of the papers it builds on, by path."""
    names = closure(paper, plugins, builds_on)
    written = {file: text for name in names for file, text in texts(plugins[name]).items()}
    return {
        file: of_text(text)
        for file, text in written.items()
        if file.endswith(".py") and not file.endswith(f"/{EXERCISES}")
    }


def of_text(text: str) -> list[Statement]:
    """The statements of a file, with the statements of a block after its header; for a file with a syntax
    error, its lines.
    """
    try:
        return list(_statements(meaning(text).body, ""))
    except (SyntaxError, ValueError):
        return [_hashed((n, n), line.rstrip()) for n, line in enumerate(text.splitlines(), 1)]


def _hashed(span: tuple[int, int], words: str) -> Statement:
    return Statement(*span, hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:8])


def _statements(block: Sequence[ast.AST], within: str) -> Iterator[Statement]:
    """within: the kinds of the blocks around them, such as `/body/orelse`; they are part of the hash."""
    for node in block:
        yield _hashed(_span(node), within + _dump(node))
        for name, value in ast.iter_fields(node):
            if _is_block(value):
                yield from _statements(value, f"{within}/{name}")


def _is_block(value: Any) -> bool:
    nested = ast.stmt, ast.excepthandler, ast.match_case
    return isinstance(value, list) and bool(value) and isinstance(value[0], nested)


def _dump(value: Any) -> str:
    """Like `ast.dump`, but independent of the Python version and without the statement's blocks."""
    if isinstance(value, ast.AST):
        fields = [
            f"{name}={_dump(found)}"
            for name, found in ast.iter_fields(value)
            if found is not None and found != [] and not _is_block(found)
        ]
        return f"{type(value).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_dump, value))}]" if isinstance(value, list) else repr(value)


def _span(node: ast.AST) -> tuple[int, int]:
    """The lines of a statement with its decorators, but without its blocks."""
    own = [value for _, value in ast.iter_fields(node) if not _is_block(value)]
    children = [child for value in own for child in (value if isinstance(value, list) else [value])]
    inner = [one for child in children if isinstance(child, ast.AST) for one in ast.walk(child)]
    lines = [line for one in inner for line in (getattr(one, "lineno", 0), getattr(one, "end_lineno", 0))]
    if not any(_is_block(value) for _, value in ast.iter_fields(node)):
        lines.append(getattr(node, "end_lineno", 0))
    lines = [line for line in (*lines, getattr(node, "lineno", 0)) if line]
    return min(lines), max(lines)


def save(folder: Path, prints: Prints) -> None:
    """Save the hashes in a run's folder. Raises OSError."""
    write_text(folder / _FILE, json.dumps(as_json(prints), indent=0) + "\n")


def as_json(prints: Prints) -> dict[str, str]:
    return {name: " ".join(map(str, found)) for name, found in prints.items()}


def load(folder: Path) -> Prints:
    """The hashes saved in a run's folder; {} if there are none, or they cannot be read."""
    try:
        return parse(json.loads(regular.read_bytes(folder / _FILE, _LARGEST)))
    except (OSError, ValueError, RecursionError):
        return {}


def parse(found: Any) -> Prints:
    """Parse `as_json`; {} for the hashes of lines that an earlier version saved. Raises ValueError."""
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("the code's hashes are not a mapping from files to texts")
    matches = {
        one_line(name): [_SAVED.fullmatch(word) for word in text.split()] for name, text in found.items()
    }
    if not all(match for one in matches.values() for match in one):
        return {}
    return {
        name: [Statement(int(match[1]), int(match[2]), match[3]) for match in one if match]
        for name, one in matches.items()
    }


def changes(there: Prints, here: Prints) -> list[Change]:
    """The places where the code here differs from the code there."""
    found = []
    for file in sorted(there.keys() | here.keys()):
        before, after = there.get(file, []), here.get(file, [])
        hashes = [one.hash for one in before], [one.hash for one in after]
        blocks = SequenceMatcher(None, *hashes, autojunk=False).get_opcodes()
        found += [
            Change(file, _lines_of(before[a:b]), _lines_of(after[c:d]))
            for tag, a, b, c, d in blocks
            if tag != "equal"
        ]
    return found


def _lines_of(statements: Sequence[Statement]) -> tuple[int, int] | None:
    return (statements[0].first, max(one.last for one in statements)) if statements else None


def in_words(found: Sequence[Change]) -> str:
    """`adam/model.py, line 41; adam/model.py, lines 60 to 63`; "" without differences."""
    named = [str(change) for change in found[:_NAMED]]
    more = len(found) - len(named)
    return "; ".join([*named, *([counted(more, "more place")] if more else [])])
