"""A YAML file as a tree of nodes with line numbers, for error messages.

Scalars remain text, as written in the file. Features that a hand-written list does not need are rejected:
aliases, a second document, excessive depth or size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from readtrack.text import one_line, quoted

MAX_BYTES = 32 * 1024 * 1024  # some 100,000 papers
MAX_DEPTH = 40

# The parser's messages for text that should have been quoted.
_UNQUOTED = (
    "mapping values",
    "could not find expected ':'",
    "cannot start any token",
    "an alias",
    "an anchor",
)


class Problem(Exception):
    """A problem in the file and its solution, at a line (0: the whole file)."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class EmptyFile(Problem):
    """The file has no content, or only comments."""


Value: TypeAlias = "str | list[Node] | dict[str, Node] | None"


@dataclass(slots=True)
class Node:
    """`line` is the key's line for a value under a key, because the reader will look there."""

    line: int
    value: Value


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise Problem(0, "there is no such file; put your list there, or name another") from None
    except IsADirectoryError:
        raise Problem(0, "this is a folder; name the file in it") from None
    except OSError as error:
        raise Problem(0, f"it cannot be read ({error.strerror}); check its permissions") from None
    if len(data) > MAX_BYTES:
        limit = MAX_BYTES // 2**20
        raise Problem(
            0, f"it is larger than {limit} MiB, too large for a reading list; split it, or name another"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Problem(line, f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8") from None
    if not text.strip():
        raise EmptyFile(0, "it is empty; start it with 'title:' and 'checklist:'")
    return text


def read(path: Path) -> Node:
    """The file's only document. Raises Problem."""
    return _compose(_read_text(path))


def _compose(text: str) -> Node:
    # Uses the parser's events, because its own composer recurses as deep as the file (in C, which would crash
    # the process) and resolves aliases (so that a small file could fill the memory).
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast as the Python loader
    try:
        events: Iterator[Any] = iter(yaml.parse(text, Loader=loader))
        next(events)  # the start of the stream
        if not isinstance(next(events), yaml.DocumentStartEvent):
            raise EmptyFile(0, "it holds only comments; start it with 'title:' and 'checklist:'")
        root = _node(next(events), events, 0)
        next(events)  # the end of the document
        after = next(events)
    except yaml.MarkedYAMLError as error:
        raise _syntax_problem(text, error) from None
    except yaml.YAMLError as error:
        raise Problem(_unprintable_line(text), f"{one_line(str(error))}; delete that character") from None
    if not isinstance(after, yaml.StreamEndEvent):
        line = after.start_mark.line + 1
        raise Problem(line, "a second YAML document starts here; keep one list in a file")
    return root


def _node(event: Any, events: Iterator[Any], depth: int) -> Node:
    import yaml

    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent):
        text = f"'*{event.anchor}' is a YAML alias; put text that starts with '*' in double quotes"
        raise Problem(line, text)
    if isinstance(event, yaml.ScalarEvent):
        empty = event.implicit[0] and event.value in ("", "~", "null")
        return Node(line, None if empty else event.value)
    if depth == MAX_DEPTH:
        raise Problem(line, f"nested more than {MAX_DEPTH} levels deep; remove a level")
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, depth + 1))
        return Node(line, items)
    fields: dict[str, Node] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _node(event, events, depth + 1)
        if not isinstance(key.value, str):
            raise Problem(key.line, f"{described(key)} where a key is expected; write 'key: value'")
        if key.value in fields:
            first = fields[key.value].line
            raise Problem(key.line, f"{quoted(key.value)} is already on line {first}; keep one of the two")
        fields[key.value] = Node(key.line, _node(next(events), events, depth + 1).value)
    return Node(line, fields)


def _syntax_problem(text: str, error: Any) -> Problem:
    line = (error.problem_mark or error.context_mark).line + 1
    lines = text.split("\n")
    at = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in at[: len(at) - len(at.lstrip())]:
        return Problem(line, "a tab is used as indentation; use spaces")
    context = f"{error.context}, " if error.context else ""
    said = one_line(context + str(error.problem))
    if any(sign in said for sign in _UNQUOTED):
        return Problem(line, f"{said}; use double quotes for text that has ': ' or '#' or begins with a sign")
    return Problem(line, f"{said}; check the lines above it, too")


def _unprintable_line(text: str) -> int:
    found = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def described(node: Node) -> str:
    if isinstance(node.value, str):
        return quoted(node.value)
    return "empty" if node.value is None else "a list" if isinstance(node.value, list) else "a mapping"
