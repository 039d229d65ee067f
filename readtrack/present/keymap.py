"""`keys.yaml` in the home: custom keys for the app's actions.

    # action: a key, or a list of keys
    run: x
    break: [r, f5]

An invalid line is reported, and its action keeps the default keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from string import ascii_lowercase

from readtrack.present.actions import ACTIONS, BY_ID, PLACES, by_group
from readtrack.reading_list import yaml_tree
from readtrack.text import one_line

_NAMED = (
    "backspace", "delete", "down", "end", "enter", "escape", "home", "insert", "left", "pagedown", "pageup",
    "right", "space", "tab", "up", *(f"f{number}" for number in range(1, 25)),
)  # fmt: skip
_KEY = re.compile(rf"(?:(?:ctrl|alt|shift)\+)*(?:{'|'.join(_NAMED)}|[^\s\x00-\x1f\x7f-\x9f])")
_QUITS = ("ctrl+c", "ctrl+q")  # in every screen, regardless of the file

Keys = dict[str, tuple[str, ...]]


def read(path: Path) -> tuple[Keys, list[str]]:
    """The keys by action in the file, and its problems, with file and line.

    A missing file counts as empty. Raises nothing: the app starts with the valid lines.
    """
    if not path.exists():
        return {}, []
    try:
        root = yaml_tree.read(path)
        if not isinstance(root.value, dict):
            raise yaml_tree.Problem(root.line, "this is not a list of actions; write lines such as 'run: x'")
    except yaml_tree.EmptyFile:
        return {}, []
    except yaml_tree.Problem as problem:
        return {}, [_at(path, problem.line, str(problem))]
    keys: Keys = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for name, node in root.value.items():
        try:
            keys[name], lines[name] = _keys(name, node), node.line
        except yaml_tree.Problem as problem:
            problems.append(_at(path, problem.line, str(problem)))
    while (clash := next(_clashes(keys), None)) is not None:
        name, key, other = clash
        at = f" in line {lines[other]}" if other in keys else ""
        problems.append(_at(path, lines[name], f"{name!r} takes {key!r}, which {other!r} already has{at}"))
        del keys[name]
    return keys, problems


def _at(path: Path, line: int, problem: str) -> str:
    return f"{path.name}{f', line {line}' if line else ''}: {one_line(problem)}"


def _keys(name: str, node: yaml_tree.Node) -> tuple[str, ...]:
    if name not in BY_ID:
        near = get_close_matches(name, BY_ID, n=1, cutoff=0.0)
        raise yaml_tree.Problem(node.line, f"there is no action {name!r}; the nearest is {near[0]!r}")
    given = node.value if isinstance(node.value, list) else [node]
    keys = tuple(one.value for one in given if isinstance(one.value, str))
    if not keys or len(keys) < len(given):
        raise yaml_tree.Problem(node.line, f"{name!r} needs a key, or a list of keys such as [r, f5]")
    for key in keys:
        if not _KEY.fullmatch(key):
            near = get_close_matches(key, [*_NAMED, *(f"ctrl+{letter}" for letter in ascii_lowercase)], n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise yaml_tree.Problem(node.line, f"there is no key {key!r}{hint}")
        if key in _QUITS and name != "leave":
            raise yaml_tree.Problem(node.line, f"{key!r} always quits; take another key for {name!r}")
    return keys


def _clashes(keys: Keys) -> Iterator[tuple[str, str, str]]:
    """(action in the file, key, the other action that has the key in the same place)."""
    for place in PLACES:
        owner: dict[str, str] = {}
        for action in sorted((one for one in ACTIONS if one.where in place), key=lambda one: one.id in keys):
            for key in keys.get(action.id, action.default_keys):
                if key in owner and action.id in keys:
                    yield action.id, key, owner[key]
                owner[key] = action.id


def written() -> Iterator[str]:
    """The current keys as a `keys.yaml`, line by line."""
    for group, actions in by_group():
        yield f"# {group}"
        for action in actions:
            keys = [key if re.fullmatch(r"[A-Za-z][\w+]*", key) else f'"{key}"' for key in action.keys]
            value = keys[0] if len(keys) == 1 else f"[{', '.join(keys)}]"
            yield f"{f'{action.id}: {value}':<36}  # {action.help}"
