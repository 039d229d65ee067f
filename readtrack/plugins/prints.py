"""A fingerprint of a run's code: a hash per line, enough to tell which lines differ elsewhere.

A run stores them in `code.json`. The hashes do not reveal the code. Comment lines are included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from readtrack import regular
from readtrack.home import write_text
from readtrack.plugins.code import closure
from readtrack.plugins.edits import texts
from readtrack.plugins.find import PluginRef
from readtrack.text import counted, one_line

Prints = dict[str, list[str]]

_FILE = "code.json"
_LARGEST = 4 << 20  # size limit of a code.json, in bytes
_DIGITS = 8  # length of a hash
_NAMED = 5  # maximum number of places that a difference names


class Change(NamedTuple):
    """A range of lines that differs. there, here: first and last line in each, or None if there are none."""

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
    return {file: of_text(text) for file, text in written.items() if file.endswith(".py")}


def of_text(text: str) -> list[str]:
    return [hashlib.sha256(line.rstrip().encode()).hexdigest()[:_DIGITS] for line in text.splitlines()]


def save(folder: Path, prints: Prints) -> None:
    """Save the hashes in a run's folder. Raises OSError."""
    joined = {name: "".join(lines) for name, lines in prints.items()}
    write_text(folder / _FILE, json.dumps(joined, indent=0) + "\n")


def load(folder: Path) -> Prints:
    """The hashes saved in a run's folder; {} if there are none, or they cannot be read."""
    try:
        return parse(json.loads(regular.read_bytes(folder / _FILE, _LARGEST)))
    except (OSError, ValueError, RecursionError):
        return {}


def parse(found: Any) -> Prints:
    """Parse hashes from `save` or from a card. Raises ValueError for anything else."""
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("the code's hashes are not a mapping from files to texts")
    return {
        one_line(name): [text[at : at + _DIGITS] for at in range(0, len(text), _DIGITS)]
        for name, text in found.items()
    }


def changes(there: Prints, here: Prints) -> list[Change]:
    """The places where the code here differs from the code there."""
    found = []
    for file in sorted(there.keys() | here.keys()):
        before, after = there.get(file, []), here.get(file, [])
        if before != after:
            blocks = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
            found += [Change(file, _span(a, b), _span(c, d)) for tag, a, b, c, d in blocks if tag != "equal"]
    return found


def _span(start: int, end: int) -> tuple[int, int] | None:
    return (start + 1, end) if end > start else None


def in_words(found: Sequence[Change]) -> str:
    """`adam/model.py, line 41; adam/model.py, lines 60 to 63`; "" without differences."""
    named = [str(change) for change in found[:_NAMED]]
    more = len(found) - len(named)
    return "; ".join([*named, *([counted(more, "more place")] if more else [])])
