"""`keys.yaml`: its effects, and messages for invalid lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from readtrack.cli.keys import app
from readtrack.home import Home
from readtrack.present import keymap
from readtrack.present.actions import ACTIONS, BY_ID, key, remap


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.mark.parametrize("text", [None, "", "# nothing yet\n"])
def test_no_file_and_an_empty_one_change_nothing(file: Path, text: str | None) -> None:
    if text is not None:
        file.write_text(text)
    assert keymap.read(file) == ({}, [])


def test_a_key_a_list_of_keys_and_a_swap(file: Path) -> None:
    file.write_text("run: x\nbreak: [r, f5]\nfilter: ','\nmark_todo: 6\n")
    assert keymap.read(file) == (
        {"run": ("x",), "break": ("r", "f5"), "filter": (",",), "mark_todo": ("6",)},
        [],
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("run: w2\n", "line 1: there is no key 'w2'"),
        ("# mine\nundoo: z\n", "line 2: there is no action 'undoo'; the nearest is 'undo'"),
        ("run: ctlr+x\n", "line 1: there is no key 'ctlr+x'; the nearest is 'ctrl+x'"),
        ("run:\n", "line 1: 'run' needs a key, or a list of keys such as [r, f5]"),
        ("run: []\n", "line 1: 'run' needs a key, or a list of keys such as [r, f5]"),
        ("run: {a: b}\n", "line 1: 'run' needs a key, or a list of keys such as [r, f5]"),
        ("zoom: T\n", "line 1: 'zoom' takes 'T', which 'theme' already has"),
        ("run: z\n", "line 1: 'run' takes 'z', which 'zoom' already has"),
        ("run: f9\nzoom: f9\n", "line 2: 'zoom' takes 'f9', which 'run' already has in line 1"),
        ("run: ctrl+c\n", "line 1: 'ctrl+c' always quits; take another key for 'run'"),
        ("- run\n", "line 1: this is not a list of actions; write lines such as 'run: x'"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_left_out(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    keys, problems = keymap.read(file)
    assert problems[0].startswith(f"keys.yaml, {problem}")
    name = problem.split("'")[1]
    assert name not in keys


def test_the_other_lines_count(file: Path) -> None:
    file.write_text("undoo: f7\nredo: f8\n")
    assert keymap.read(file)[0] == {"redo": ("f8",)}


def test_a_written_keymap_can_be_read_again(file: Path) -> None:
    try:
        remap({"run": ("f5", "^")})
        file.write_text("\n".join(keymap.written()))
        assert key("run") == "f5"
    finally:
        remap({})
    expected = {one.id: one.default_keys for one in ACTIONS} | {"run": ("f5", "^")}
    keys, problems = keymap.read(file)
    assert not problems
    assert keys == expected
    assert key("run") == BY_ID["run"].default_keys[0]


def test_the_command_prints_the_active_keys_and_the_errors(home: Home) -> None:
    home.ensure()
    home.keys_yaml.write_text("run: f5\nundoo: z\n")
    try:
        done = CliRunner().invoke(app, [])
        lines = done.stdout.splitlines()
        assert str(home.keys_yaml) in lines[0]
        assert any(line.startswith("run: f5 ") for line in lines)
        assert str(done.exception) == ("keys.yaml, line 2: there is no action 'undoo'; the nearest is 'undo'")
        assert '"keys": [' in CliRunner().invoke(app, ["--json"]).stdout
    finally:
        remap({})
