"""Start, end and start-up time of all commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import readtrack
from readtrack import __main__
from readtrack.cli import app
from readtrack.home import Home

Cli = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = ("torch", "numpy", "textual", "rich", "requests", "sklearn", "pluggy", "psutil", "statistics")


def imported_by(*arguments: str) -> set[str]:
    """The modules imported by a process that has just run a command line."""
    script = (
        f"import sys, json\nsys.argv[1:] = {list(arguments)!r}\nfrom readtrack.cli import main\n"
        "try:\n    main()\nfinally:\n    print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [("--help",), ("list",), ("run", "--help"), ("mark", "toy_sgd", "read")]
)
def test_a_light_command_imports_no_heavy_module(arguments: tuple[str, ...], papers: Path) -> None:
    assert imported_by(*arguments).isdisjoint(HEAVY)


def test_a_second_list_needs_neither_yaml_nor_typer(papers: Path) -> None:
    assert "yaml" in imported_by("list")
    assert imported_by("list").isdisjoint({"yaml", "typer"})
    assert "typer" in imported_by("list", "--json")


def test_on_windows_the_error_names_the_supported_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__.os, "name", "nt")
    with pytest.raises(SystemExit, match="Linux and macOS"):
        __main__.main()


@pytest.mark.timing
@pytest.mark.parametrize(("argument", "most"), [("list", 6), ("--help", 8)])
def test_a_light_command_starts_within_some_bare_interpreters(
    argument: str, most: float, command: str, papers: Path, tmp_path: Path
) -> None:
    # Write bytecode as after an installation; the environment of the tests may disable it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path / "bytecode")

    def seconds(*command_line: str) -> float:
        start = time.perf_counter()
        subprocess.run(command_line, stdout=subprocess.DEVNULL, check=True, env=environment)
        return time.perf_counter() - start

    bare, light = (sys.executable, "-c", "pass"), (command, argument)
    for command_line in (bare, light):
        seconds(*command_line)
    # Take turns and use the best of many, because the excess is other work of the machine.
    times = [(seconds(*bare), seconds(*light)) for _ in range(15)]
    assert min(t for _, t in times) <= most * min(t for t, _ in times)


def test_version_and_help_are_data(cli: Cli) -> None:
    assert cli("--version").stdout == f"readtrack {readtrack.__version__}\n"
    shown = cli("--help")
    assert shown.returncode == 0
    assert "Exit codes" in shown.stdout
    for command in ("run", "list", "show", "mark", "undo", "tag", "rate", "note", "results", "doctor"):
        assert f"\n  {command} " in shown.stdout


@pytest.mark.parametrize("name", app._COMMANDS)
def test_a_commands_help_matches_the_overview(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([name, "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"Usage: readtrack {name}")
    assert app._COMMANDS[name][1].rstrip(".") in " ".join(page.split())


def test_the_app_wants_a_terminal(cli: Cli) -> None:
    done = cli()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("readtrack: the app needs a terminal")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("lst",), "Did you mean `readtrack list`?"),
        (("run", "--devcie", "cpu", "toy_sgd"), "--device"),
        (("run",), "paper"),
        (("mark", "toy_sgd", "unread"), "'read'"),
        (("run", "toy_sgd", "--budget", "huge"), "'smoke'"),
        (("show", "nobody"), "nobody"),
        (("plugins", "chekc"), "check"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(
    cli: Cli, arguments: tuple[str, ...], hint: str
) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("readtrack: ")
    assert done.stderr.count("\n") == 1
    assert hint in done.stderr


def test_a_bug_is_a_line_and_a_traceback_in_a_file(
    home: Home, papers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("seven by none")

    monkeypatch.setattr("readtrack.cli.checklist.open_library", broken)
    assert app.run(["list"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: seven by none" in said
    (log,) = (home.root / "logs").iterdir()
    assert str(log) in said
    assert "in broken" in log.read_text(encoding="utf-8")


def test_a_broken_list_is_named_by_its_line(cli: Cli, papers: Path) -> None:
    papers.write_text("title: x\nchecklist: []\nautors: 1\n", encoding="utf-8")
    done = cli("list")
    assert done.returncode == 2
    assert done.stderr.startswith("readtrack: papers.yaml:3: ")


def test_a_closed_pipe_gives_no_traceback(command: str, papers: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} list | true; exit $?"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_an_ascii_terminal_will_do(cli: Cli) -> None:
    done = cli("show", "toy_adam", environment={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Adam >= naive")
    facts = cli("show", "toy_adam", "--json", environment={"PYTHONIOENCODING": "ascii"})
    assert json.loads(facts.stdout)["title"] == "Adam ≥ naïve"


@pytest.mark.slow
def test_a_pipe_gets_no_colours(cli: Cli) -> None:
    for arguments in (("list",), ("show", "toy_adam"), ("plugins", "list"), ("doctor",)):
        assert "\x1b" not in cli(*arguments).stdout


def test_every_command_and_option_has_a_short_sentence() -> None:
    def sentences(command: Any) -> Iterator[str]:
        yield command.help.split("\n\n")[0].replace("\n", " ").strip()
        yield from (one.help for one in command.params)
        for below in getattr(command, "commands", {}).values():
            yield from sentences(below)

    group: Any = typer.main.get_command(app.app)
    found = [one for name in app._COMMANDS for one in sentences(group.get_command(None, name))]
    assert [one for one in found if len(one) > 80 or not one.endswith(".")] == []
