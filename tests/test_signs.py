"""The signs: one column and one ASCII replacement each, and defined in a single place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import readtrack
from readtrack import signs
from readtrack.cli.terminal import cells
from readtrack.present.plain_ascii import one_column

SIGNS = {name: value for name, value in vars(signs).items() if isinstance(value, str) and name.isupper()}


@pytest.mark.parametrize("name", SIGNS)
def test_a_sign_takes_one_column_and_so_does_its_stand_in(name: str) -> None:
    plain = one_column(SIGNS[name])
    assert cells(SIGNS[name]) == len(plain) == 1
    assert plain.isascii()
    assert plain != "?"


@pytest.mark.parametrize(
    ("op", "below", "equal", "above"),
    [
        (">=", False, True, True),
        (">", False, False, True),
        ("<=", True, True, False),
        ("<", True, False, False),
        ("==", False, True, False),
    ],
)
def test_bounds_compare(op: str, below: bool, equal: bool, above: bool) -> None:
    assert [signs.HOLDS[op](value, 1.0) for value in (0.5, 1.0, 1.5)] == [below, equal, above]


@pytest.mark.slow
def test_no_other_module_defines_a_sign() -> None:
    """The import and the report have their own tables; all other modules take signs from
    `readtrack.signs`.
    """
    root = Path(readtrack.__file__).parent
    apart = {"signs.py", "present/plain_ascii.py", "tui/screens/import_list.py"}
    own = {sign for name, sign in SIGNS.items() if name in ("PASSED", "FAILED", "RUNNING", "STOPPED", "STAR")}
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in root.rglob("*.py")
        if path.relative_to(root).as_posix() not in apart and path.relative_to(root).parts[0] != "report"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if len(node.value) < 12 and any(sign in node.value for sign in own)
    ]
    assert not found
