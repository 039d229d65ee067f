"""The list, and commands that set states, tags, ratings and notes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


def on_terminal(
    *command: str, columns: int = 60, environment: dict[str, str] | None = None, code: int = 0
) -> str:
    """The output of a command on a terminal of this width."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), **(environment or {})},
    ) as process:
        os.close(follower)
        written = b""
        try:
            while piece := os.read(leader, 65536):
                written += piece
        except OSError:
            pass  # Linux reports that no process has the terminal open
        os.close(leader)
        assert process.wait() == code
    return written.decode().replace("\r\n", "\n")


def test_an_empty_list_explains_how_to_fill_it(cli: Cli, papers: Path) -> None:
    papers.write_text("title: Mine\nchecklist: []\n", encoding="utf-8")
    assert "readtrack import" in cli("list").stderr
    papers.write_text("title: Mine\nchecklist:\n- section: S\n  rows:\n  - text: a row\n", encoding="utf-8")
    assert "no row of the checklist matches" in cli("list", "--state", "read").stderr


def test_the_list_is_the_readers_own_tree(cli: Cli) -> None:
    lines = cli("list").stdout.splitlines()
    assert lines[:2] == ["My list", "read one a day"]
    assert [line[:40].rstrip() for line in lines[3:]] == [
        "Optimisers",
        "[x] SGD to AdamW [see blog](https://exam",
        "  [ ] Second order",
        "(TODO: more of them)",
        "",
        "Vision",
        "[ ] Try a convolution",
        "[ ] A toy",
    ]
    assert re.search(r"read +toy_sgd toy_adam$", lines[4])
    assert lines[-1].endswith(" toy_ok*")  # can be run


def test_the_list_as_json_has_every_row(cli: Cli) -> None:
    rows = json.loads(cli("list", "--json").stdout)
    assert [(row["section"], row["depth"], row["state"]) for row in rows] == [
        ("Optimisers", 0, "read"),
        ("Optimisers", 1, "todo"),
        ("Vision", 0, "todo"),
        ("Vision", 0, "todo"),
    ]
    assert rows[0]["papers"][1] == {
        "id": "toy_adam",
        "title": "Adam ≥ naïve",
        "state": "read",
        "since": None,
        "authors": ["Ada Example", "René Muster"],
        "year": 2014,
        "arxiv": "1412.6981",
        "url": "https://arxiv.org/abs/1412.6981",
        "builds_on": [],
        "tags": [],
        "rating": None,
        "runnable": False,
    }
    assert rows[3]["papers"][0]["runnable"] is True


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("toy_newton",), ["toy_newton"]),
        (("--runnable",), ["toy_ok"]),
        (("--state", "read"), ["toy_sgd", "toy_adam"]),
        (("--section", "vis"), ["toy_ok"]),
        (("naive", "--state", "read"), ["toy_adam"]),
        (("toy_adam", "or", "toy_newton"), ["toy_adam", "toy_newton"]),
    ],
)
def test_filters_keep_the_matching_rows(cli: Cli, arguments: tuple[str, ...], ids: list[str]) -> None:
    rows = json.loads(cli("list", "--json", *arguments).stdout)
    assert [paper["id"] for row in rows for paper in row["papers"]] == ids


def test_a_nested_row_is_shown_under_its_parent(cli: Cli) -> None:
    lines = cli("list", "toy_newton").stdout.splitlines()
    assert [line[:18].rstrip() for line in lines] == [
        "Optimisers",
        "[x] SGD to AdamW [",
        "  [ ] Second order",
    ]
    assert "toy_adam" not in lines[1].split(")")[-1]


def test_nothing_found_is_exit_code_3(cli: Cli) -> None:
    done = cli("list", "xyzzy")
    assert (done.returncode, done.stdout) == (3, "")
    assert cli("list", "--section", "xyzzy").returncode == 2
    assert json.loads(cli("list", "xyzzy", "--json").stdout) == []


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_the_list_fits_the_terminal(command: str, cli: Cli, columns: int) -> None:
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(command, "list", columns=columns))
    assert all(len(line) <= columns for line in shown.splitlines())
    assert "blog" in shown
    assert "example.org" not in shown  # a link appears with its name only
    assert "* can be run" in shown
    assert "● SGD to AdamW" in shown
    assert "  ○ Second order" in shown
    assert "○ todo ◐ reading ● read" in " ".join(shown.split())


def test_a_terminal_gets_colours_unless_the_reader_disables_them(command: str, cli: Cli) -> None:
    assert "\x1b[" in on_terminal(command, "list")
    assert "\x1b" not in on_terminal(command, "list", environment={"NO_COLOR": "1"})
    assert "\x1b" not in on_terminal(command, "list", environment={"TERM": "dumb"})


def test_marking_is_kept_and_undone_as_one(cli: Cli) -> None:
    done = cli("mark", "toy_newton", "1412.6981", "reading")
    assert done.stdout == "toy_newton: todo -> reading\ntoy_adam: read -> reading\n"
    assert cli("list", "--state", "reading", "--json").stdout.count('"since": "20') == 2
    assert cli("mark", "toy_newton", "reading").stdout == "toy_newton: reading already\n"
    assert cli("undo").stdout.startswith("toy_adam and toy_newton: no longer reading")
    assert "[ ] Second order" in cli("list").stdout
    assert cli("undo").returncode == 3


def test_nothing_is_marked_when_one_name_is_wrong(cli: Cli) -> None:
    assert cli("mark", "toy_newton", "nobody", "read").returncode == 2
    assert json.loads(cli("list", "toy_newton", "--json").stdout)[0]["state"] == "todo"


def test_a_row_without_papers_goes_by_its_text(cli: Cli) -> None:
    assert cli("mark", "convolution", "read").returncode == 0
    assert "[x] Try a convolution" in cli("list").stdout
    assert cli("mark", "row:nothing", "read").returncode == 2


def test_tags_and_ratings(cli: Cli) -> None:
    assert cli("tag", "toy_adam", "gpu", "optim").stdout == "toy_adam: gpu, optim\n"
    assert cli("tag", "toy_adam", "--remove", "gpu").stdout == "toy_adam: optim\n"
    assert cli("rate", "toy_adam", "4").stdout == "toy_adam: 4/5\n"
    facts = json.loads(cli("show", "toy_adam", "--json").stdout)
    assert (facts["tags"], facts["rating"]) == (["optim"], 4)
    assert cli("rate", "toy_adam", "0").stdout == "toy_adam: not rated\n"
    assert cli("rate", "toy_adam", "6").returncode == 2


def test_a_note_grows_by_paragraphs(cli: Cli) -> None:
    assert cli("note", "toy_adam").returncode == 3
    assert cli("note", "toy_adam", "first *thought*").stdout == ""
    assert cli("note", "toy_adam", "-", stdin="second\nthought\n").returncode == 0
    assert cli("note", "toy_adam").stdout == "first *thought*\n\nsecond\nthought\n"
    assert "second" in cli("show", "toy_adam").stdout
    assert cli("note", "toy_adam", "  ").returncode == 2


def test_a_note_opens_the_readers_editor(command: str, cli: Cli, tmp_path: Path) -> None:
    editor = tmp_path / "an editor"
    editor.write_text('#!/bin/sh\necho "written in $1" > "$2"\n')
    editor.chmod(0o755)
    on_terminal(command, "note", "toy_adam", environment={"EDITOR": f"'{editor}' vi", "VISUAL": ""})
    assert cli("note", "toy_adam").stdout == "written in vi\n"


def test_an_editor_that_is_not_a_command_is_reported(command: str, cli: Cli) -> None:
    said = on_terminal(command, "note", "toy_adam", environment={"EDITOR": 'vim "', "VISUAL": " "}, code=2)
    assert said == """readtrack: EDITOR is 'vim "', which has an unclosed quotation mark.\n"""
    said = on_terminal(
        command, "note", "toy_adam", environment={"EDITOR": "no-such-vim", "VISUAL": ""}, code=2
    )
    assert said == "readtrack: could not start 'no-such-vim': No such file or directory. Set EDITOR.\n"


def test_without_a_setting_an_editor_that_is_there_is_opened(command: str, cli: Cli, tmp_path: Path) -> None:
    bare = {"EDITOR": "", "VISUAL": "", "PATH": str(tmp_path / "bin")}
    (tmp_path / "bin").mkdir()
    said = on_terminal(command, "note", "toy_adam", environment=bare, columns=200, code=2)
    assert "EDITOR is not set, and no editor was found" in said
    editor = tmp_path / "bin" / "nano"
    editor.write_text('#!/bin/sh\necho "written in nano" > "$1"\n')
    editor.chmod(0o755)
    on_terminal(command, "note", "toy_adam", environment=bare)
    assert cli("note", "toy_adam").stdout == "written in nano\n"


def test_show_prints_known_facts(cli: Cli) -> None:
    shown = cli("show", "Adam ≥").stdout
    assert shown.startswith("Adam ≥ naïve\n")
    for part in ("by          Ada Example, René Muster, 2014\n", "arxiv.org/abs/1412.6981", "no plugin yet"):
        assert part in shown
    assert "readtrack run toy_ok" in cli("show", "toy_ok").stdout
    facts = json.loads(cli("show", "toy_ok", "--json").stdout)
    assert facts["plugin"]["origin"] == "path"
    assert facts["rows"] == ["A toy"]


def test_text_from_outside_cannot_steer_the_terminal(cli: Cli, papers: Path) -> None:
    papers.write_text(papers.read_text().replace("Newton", "New\\e[31mton\\e]0;owned\\a"), encoding="utf-8")
    assert "\x1b" not in cli("show", "toy_newton").stdout + cli("list").stdout
