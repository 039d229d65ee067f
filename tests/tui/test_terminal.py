"""The installed command in a real terminal (tmux)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from terminals import COMMAND, TOYS, Terminal, wait_for

from readtrack.home import Home
from readtrack.runs import launcher, store
from readtrack.runs.job import new_job

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.skipif(not COMMAND.exists(), reason="readtrack is not installed beside this Python"),
]

LIST = """\
title: "My list"
checklist:
  - section: "Toys"
    rows:
{rows}
papers:
{facts}
"""


def write_list(home: Home, *papers: str) -> None:
    rows = "\n".join(f'      - text: "Row of {name}"\n        papers: [{name}]' for name in papers)
    facts = "\n".join(
        f"  {name}:\n    title: Title of {name}\n    authors: [A. Person]\n    year: 2020\n"
        "    sources:\n      - page: https://example.org/\n    problem: P.\n    idea: I.\n    result: R."
        for name in papers
    )
    home.ensure()
    home.papers_yaml.write_text(LIST.format(rows=rows, facts=facts), encoding="utf-8")


def no_process_of(run_id: str) -> bool:
    for process in psutil.process_iter():
        try:
            if process.status() != "zombie" and process.environ().get("READTRACK_RUN") == run_id:
                return False
        except (psutil.Error, OSError):
            continue
    return True


def test_a_visit(terminal: Terminal, home: Home) -> None:
    write_list(home, "toy_ok", "toy_hang", "toy_fail")
    began = time.monotonic()
    terminal.start(size=(160, 50))
    terminal.wait_for("Row of toy_fail")
    print(f"first paint after {time.monotonic() - began:.2f} s")
    terminal.wait_for("? help")
    terminal.keys("j", "2")
    terminal.wait_for("toy_hang marked as reading")
    terminal.keys("/", "f", "a", "i", "l", "Enter")
    terminal.wait_for("5 found")
    assert "Row of toy_ok" not in terminal.screen()
    terminal.keys("Space")
    terminal.wait_for("toy_fail marked as read")
    # Smaller and smaller, because tmux 3.3 itself leaves lines behind in a window that has grown.
    for size in ((100, 30), (80, 24), (60, 15)):
        terminal.resize(*size)
        wait_for(lambda size=size: len(terminal.screen().splitlines()) == size[1], terminal.screen)
        terminal.wait_for("? help")
        assert max(len(line) for line in terminal.screen().splitlines()) <= size[0]
    terminal.keys("q")
    terminal.wait_for("exit code 0")
    assert terminal.screen().split() == ["exit", "code", "0"]  # nothing else is left on the terminal
    written = [json.loads(line) for line in home.journal.read_text(encoding="utf-8").splitlines()]
    assert [(line["paper"], line["state"]) for line in written] == [
        ("toy_hang", "reading"),
        ("toy_fail", "read"),
    ]


def test_a_list_that_cannot_be_read(terminal: Terminal, home: Home) -> None:
    home.ensure()
    home.papers_yaml.write_text("title: x\nchecklst: []\n", encoding="utf-8")
    terminal.start()
    said = terminal.wait_for("exit code 2")
    assert said.startswith("Could not open the reading list.")
    assert "papers.yaml:2" in said
    assert "Traceback" not in said


def test_a_run_that_prints_and_crashes_leaves_the_screen_alone(terminal: Terminal, home: Home) -> None:
    write_list(home, "toy_noise")
    terminal.start(size=(120, 30))
    terminal.wait_for("Row of toy_noise")
    terminal.wait_for("? help")
    terminal.keys("r")
    wait_for(
        lambda: home.runs.exists() and [f for f in home.runs.iterdir() if (f / "result.json").exists()],
        terminal.screen,
    )
    terminal.wait_for("after")
    screen = terminal.screen().splitlines()
    assert screen[0].startswith(" readtrack")
    assert screen[-1].startswith(" ? help")
    assert len(screen) == 30
    terminal.keys("q")
    terminal.wait_for("exit code 0")
    assert terminal.screen().split() == ["exit", "code", "0"]


def test_the_app_is_killed_in_mid_run_and_takes_the_run_along(terminal: Terminal, home: Home) -> None:
    write_list(home, "toy_hang")
    terminal.start()
    terminal.wait_for("? help")
    terminal.keys("r")
    wait_for(
        lambda: home.runs.exists() and [f for f in home.runs.iterdir() if store.load(f).phase == "train"],
        terminal.screen,
    )
    (folder,) = home.runs.iterdir()
    terminal.app().send_signal(signal.SIGKILL)
    wait_for(lambda: no_process_of(folder.name), lambda: "the end of every process of the run")
    wait_for(lambda: store.load(folder).outcome, lambda: "an end in the record")
    assert store.load(folder).outcome == "interrupted"


def test_a_terminal_that_is_closed_leaves_the_run_alone(terminal: Terminal, home: Home) -> None:
    write_list(home, "toy_hang")
    terminal.start()
    terminal.wait_for("? help")
    terminal.keys("r")
    wait_for(
        lambda: home.runs.exists() and [f for f in home.runs.iterdir() if store.load(f).phase == "train"],
        terminal.screen,
    )
    (folder,) = home.runs.iterdir()
    app = terminal.app()
    terminal.close()
    wait_for(lambda: not app.is_running(), lambda: "the end of the app")
    time.sleep(0.5)
    assert store.load(folder).outcome is None
    process = launcher.attach(folder)
    assert process is not None
    while process.poll() is None:
        process.cancel()
        time.sleep(0.05)
    assert store.load(folder).outcome == "cancelled"


def test_an_app_that_was_stopped_continues_with_one_thread_for_keys(terminal: Terminal, home: Home) -> None:
    write_list(home, "toy_ok")
    terminal.start()
    terminal.wait_for("? help")
    app = terminal.app()
    before, times = app.num_threads(), 5
    for _ in range(times):
        app.send_signal(signal.SIGSTOP)
        wait_for(lambda: app.status() == psutil.STATUS_STOPPED, app.status)
        app.send_signal(signal.SIGCONT)
        terminal.wait_for("? help")
    assert app.num_threads() < before + times

    def gone() -> bool:
        terminal.keys("q")  # a key that arrives while the terminal is handed over is lost
        return "exit code 0" in terminal.screen()

    wait_for(gone, terminal.screen)


def test_an_app_that_is_stopped_during_drawing_continues(terminal: Terminal, home: Home) -> None:
    write_list(home, "toy_ok", "toy_fail", "toy_hang")
    terminal.start()
    terminal.wait_for("? help")
    app = terminal.app()
    for number in range(8):
        terminal.keys(*"jTkT" * 5)
        time.sleep(number / 100)
        app.send_signal(signal.SIGTSTP)
        wait_for(lambda: app.status() == psutil.STATUS_STOPPED, app.status)
        assert "? help" not in terminal.screen()  # the shell has its screen back
        app.send_signal(signal.SIGCONT)
        terminal.wait_for("? help")

    def gone() -> bool:
        terminal.keys("q")  # a key that arrives while the terminal is handed over is lost
        return "exit code 0" in terminal.screen()

    wait_for(gone, terminal.screen)


def test_a_run_that_is_kept_is_found_again(terminal: Terminal, home: Home) -> None:
    write_list(home, "toy_hang")
    terminal.start()
    terminal.wait_for("? help")
    terminal.keys("r")
    terminal.wait_for("▶ running")
    wait_for(lambda: [f for f in home.runs.iterdir() if store.load(f).phase == "train"], terminal.screen)
    (folder,) = home.runs.iterdir()
    terminal.keys("q")
    terminal.wait_for("A run of toy_hang is still running.")
    terminal.keys("k")
    terminal.wait_for("exit code 0")
    assert terminal.screen().splitlines()[0] == "toy_hang is still running. Start readtrack to see it."
    terminal.close()
    assert store.load(folder).outcome is None
    terminal.start()
    terminal.wait_for("is still in progress")
    terminal.keys("c")
    terminal.wait_for("cancelled after")
    assert no_process_of(folder.name)


def edit_a_note(terminal: Terminal, folder: Path, script: str, *, alone: bool = False) -> Path:
    """Press n with this script as the editor; `$2` is the note. Returns the editor's path."""
    editor = folder / "editor with space"
    editor.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    editor.chmod(0o755)
    terminal.start(alone=alone, EDITOR=f"{shlex.quote(str(editor))} --wait")
    terminal.wait_for("? help")
    terminal.keys("n")
    terminal.wait_for("editing:")
    return editor


def test_the_readers_editor_gets_the_terminal_and_gives_it_back(
    terminal: Terminal, home: Home, tmp_path: Path
) -> None:
    write_list(home, "toy_ok")
    edit_a_note(terminal, tmp_path, 'printf "editing: "\nread line\necho "$line" > "$2"')
    terminal.keys("a good paper", "Enter")
    terminal.wait_for("a good paper")
    terminal.wait_for("? help")
    assert (home.notes / "toy_ok.md").read_text(encoding="utf-8") == "a good paper\n"
    terminal.keys("j", "k", "q")
    terminal.wait_for("exit code 0")


def test_ctrl_c_in_the_editor_is_the_editors(terminal: Terminal, home: Home, tmp_path: Path) -> None:
    write_list(home, "toy_ok")
    edit_a_note(terminal, tmp_path, 'trap "echo stopped >$2; exit 3" INT\necho editing:\nread line')
    terminal.keys("C-c")
    terminal.wait_for("it ended with exit code 3")
    assert (home.notes / "toy_ok.md").read_text(encoding="utf-8") == "stopped\n"
    terminal.wait_for("? help")
    terminal.keys("q")
    terminal.wait_for("exit code 0")


def test_a_missing_editor_is_reported(terminal: Terminal, home: Home, tmp_path: Path) -> None:
    write_list(home, "toy_ok")
    terminal.start(EDITOR=str(tmp_path / "none"))
    terminal.wait_for("? help")
    terminal.keys("n")
    terminal.wait_for("Could not start the editor")
    terminal.wait_for("esc saves and closes")  # the small editor that opens instead
    terminal.keys("Escape")
    wait_for(lambda: "esc saves" not in terminal.screen(), terminal.screen)
    terminal.keys("q")
    terminal.wait_for("exit code 0")


@pytest.mark.parametrize("alone", [True, False])
def test_a_terminal_that_is_closed_under_an_editor_takes_both_along(
    terminal: Terminal, home: Home, tmp_path: Path, alone: bool
) -> None:
    write_list(home, "toy_ok")
    editor = edit_a_note(terminal, tmp_path, "echo editing:\nsleep 600", alone=alone)
    app = terminal.app()
    [child] = [one for one in app.children() if str(editor) in one.cmdline()]
    terminal.close()
    assert psutil.wait_procs([app, child], timeout=20)[1] == []


def test_another_run_of_the_same_home_is_found(terminal: Terminal, home: Home) -> None:
    from readtrack.runs import launcher

    write_list(home, "toy_hang")
    os.environ["READTRACK_PLUGIN_PATH"] = str(TOYS)
    os.environ["PYTHONPATH"] = str(TOYS / "light")
    process = launcher.start(new_job("toy_hang", only="experiment", budget="smoke"), home)
    try:
        wait_for(lambda: store.load(process.folder).phase == "train", lambda: "training")
        terminal.start()
        terminal.wait_for("A run of toy_hang is still in progress")
        terminal.keys("v")
        terminal.wait_for("▶ running")
    finally:
        while process.poll() is None:
            process.cancel()
            time.sleep(0.02)
    terminal.wait_for("cancelled after")


def test_a_terminal_that_cannot_move_its_cursor_is_refused(terminal: Terminal, home: Home) -> None:
    write_list(home, "toy_ok")
    terminal.start(TERM="dumb")
    said = terminal.wait_for("exit code 2")
    assert "the app needs a terminal that can move its cursor, and TERM=dumb cannot" in said.replace(
        "\n", " "
    )
    assert "Row of toy_ok" not in said
