"""Options of a run: the available devices, and the equivalent command line."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import typer

from readtrack.errors import ReadtrackError
from readtrack.runs.job import new_job
from readtrack.tui.device_list import DeviceList
from readtrack.tui.screens.run_options import Options

REALLY_ASK = DeviceList.ask
DEADLINE = 60.0


def test_the_devices_match_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    found = DeviceList()
    assert REALLY_ASK(found) == found.found
    assert found.found is not None
    assert found.found[-1][0] == "cpu"
    assert all(description for _, description in found.found)


def test_the_app_ends_without_waiting_for_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setattr("readtrack.tui.device_list.sys.executable", str(slow))
    found, said = DeviceList(), []

    def ask() -> None:
        try:
            REALLY_ASK(found)
        except ReadtrackError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while found._child is None:
        time.sleep(0.01)
    found.leave()
    thread.join(DEADLINE)
    assert said == ["it ended with exit code -9"]


def test_a_command_line_for_every_choice() -> None:
    assert Options().command("adam") == "readtrack run adam"
    chosen = Options("cuda:1", "bfloat16", "full", "benchmark", "7", "a=1 b=2")
    assert chosen.command("adam") == (
        "readtrack run adam --device cuda:1 --dtype bfloat16 --budget full --only benchmark --seed 7 "
        "--set a=1 --set b=2"
    )
    assert new_job("adam", **chosen.checked().fields).settings == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("line", "command", "settings"),
    [
        ('note="a b"', "--set 'note=a b'", {"note": "a b"}),
        ("""a="it's" b='x"y'""", """--set 'a=it'"'"'s' --set 'b=x"y'""", {"a": "it's", "b": 'x"y'}),
        ("a=1\\ 2", "--set 'a=1 2'", {"a": "1 2"}),
    ],
)
def test_the_command_matches_the_runs_settings(line: str, command: str, settings: dict[str, str]) -> None:
    options = Options(settings=line)
    assert options.checked().fields["settings"] == settings
    assert options.command("adam") == f"readtrack run adam {command}"
    assert Options(settings='note="a').command("adam") == "readtrack run adam --set 'note=\"a'"


def test_the_command_line_accepts_the_dialogs_command() -> None:
    from readtrack.cli import run

    chosen = Options("cuda:1", "bfloat16", "full", "benchmark", "7", "a=1", "big")
    flags = {word for word in chosen.command("adam").split() if word.startswith("--")}
    command = typer.main.get_command(run.app)
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert flags == {"--device", "--dtype", "--budget", "--only", "--seed", "--set", "--on"}
    assert flags <= known
