"""`readtrack run` with toy plugins: output streams and every exit code."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from readtrack.breaks import refuse_unknown
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.plugins.find import PluginRef
from readtrack.runs import launcher, store

Cli = Callable[..., subprocess.CompletedProcess[str]]
DEADLINE = 60.0


@pytest.fixture(autouse=True)
def light(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import a stub of torch. The real torch is used in the tests of the plugin template."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "toys" / "light"))


def runs(home: Home) -> list[Path]:
    return sorted(home.runs.iterdir()) if home.runs.exists() else []


def test_a_run_in_a_pipe_is_plain_lines(cli: Cli, home: Home) -> None:
    done = cli("run", "toy_ok", "--seed", "7", "--only", "experiment")
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = runs(home)
    assert "\x1b" not in done.stdout
    lines = [tuple(line.split(maxsplit=1)) for line in done.stdout.splitlines()]
    assert lines[0] == ("run", f"{folder.name}, quick budget, seed 7")
    assert ("metric", "loss (paper): 1 → 0.2, step 4") in lines
    assert ("metric", "accuracy (paper): 0.75") in lines
    assert ("claim", "held: falls: last loss 0.2 (≤ 0.5); paper: from 1 to 0.1 (from memory)") in lines
    phases = [text for label, text in lines if label == "phase"]
    assert phases == ["import", "setup", "train", "evaluate", "teardown"]
    assert lines[-1] == ("record", str(folder))
    assert lines[-2][1].startswith("completed in ")


def test_a_claim_that_does_not_hold_is_a_completed_run(cli: Cli) -> None:
    done = cli("run", "toy_ok", "--set", "steps=1", "--only", "experiment")
    assert done.returncode == 0
    assert "missed: falls" in done.stdout


def test_json_lines_are_the_events_and_then_the_result(cli: Cli, home: Home) -> None:
    done = cli("run", "toy_ok", "--json", "--only", "experiment")
    assert (done.returncode, done.stderr) == (0, "")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    (folder,) = runs(home)
    written = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert documents[:-1] == written
    result = documents[-1]
    assert (result["event"], result["outcome"], result["folder"]) == ("result", "completed", str(folder))
    assert result["claims"] == [["falls", "held", "last loss 0.2"]]


@pytest.mark.parametrize(
    "arguments", [("--device", "warp9"), ("--dtype", "float7"), ("--set", "steps=many"), ("--set", "steps")]
)
def test_invalid_options_leave_no_run(cli: Cli, home: Home, arguments: tuple[str, ...]) -> None:
    done = cli("run", "toy_ok", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("readtrack: ")
    assert done.stderr.count("\n") == 1
    assert arguments[1].split("=")[-1] in done.stderr
    assert runs(home) == []


def test_a_misspelt_setting_is_refused_before_anything_runs(cli: Cli, home: Home) -> None:
    done = cli("run", "toy_ok", "--set", "stepz=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "readtrack: --set stepz: toy_ok has no option 'stepz'; did you mean 'steps'?\n"
    assert runs(home) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here")
def test_a_device_that_is_not_here_is_exit_code_3_and_no_run(cli: Cli, home: Home) -> None:
    done = cli("run", "toy_ok", "--device", "cuda", environment={"PYTHONPATH": ""})
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("readtrack: There is no device 'cuda' here: ")
    assert runs(home) == []


def test_an_unknown_break_of_a_shipped_paper_starts_no_run(cli: Cli, home: Home) -> None:
    done = cli("run", "adamw", "--break", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    breaks = "SGD with a penalty, coupled, rescaled decay, shuffled targets, untrained"
    assert done.stderr == f"readtrack: adamw has no break 'nope'. Its breaks: {breaks}.\n"
    assert not home.runs.exists()


def test_a_resumed_run_takes_no_settings_and_needs_a_stopped_run(cli: Cli, home: Home) -> None:
    done = cli("run", "adamw", "--seed", "3", "--resume")
    assert done.returncode == 2
    assert "leave out --seed, or --resume" in done.stderr
    done = cli("run", "adamw", "--resume")
    assert done.returncode == 3
    assert "No stopped run of adamw has a checkpoint" in done.stderr
    assert runs(home) == []


def test_a_break_that_only_the_code_knows_is_not_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library.open(home)
    code = tmp_path / "adamw.py"
    code.write_text('NEW = Break("new one", "...")')
    shipped = {"adamw": PluginRef("adamw", "shipped", str(code))}
    monkeypatch.setattr(library, "runnable", lambda: shipped)
    for name in ("new one", "untrained", "shuffled targets"):
        refuse_unknown(library, "adamw", name)
    with pytest.raises(ReadtrackError, match="has no break 'another'"):
        refuse_unknown(library, "adamw", "another")
    shipped["adamw"] = PluginRef("adamw", "user", str(code))
    refuse_unknown(library, "adamw", "another")  # a reader's own code may have other breaks


def test_a_paper_without_a_plugin_is_exit_code_3(cli: Cli, home: Home) -> None:
    done = cli("run", "toy_adam")
    assert (done.returncode, done.stdout) == (3, "")
    assert "readtrack plugins new toy_adam" in done.stderr
    assert cli("run", "nobody").returncode == 2
    assert runs(home) == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise", "toy_fail failed in train: ValueError: the loss is wrong ("),
        ("exit", "sys.exit(3)"),
        ("segfault", "toy_fail crashed: SIGSEGV"),
    ],
)
def test_a_failed_run_gives_the_reason_and_the_location_of_its_record(
    cli: Cli, home: Home, how: str, said: str
) -> None:
    done = cli("run", "toy_fail", "--set", f"how={how}")
    assert done.returncode == 1
    (folder,) = runs(home)
    first, *_, last = done.stderr.splitlines()
    assert first.startswith("readtrack: toy_fail ")
    assert said in first
    assert "toy_fail.py:" in first
    assert last == f"readtrack: the record is {folder}"


def test_a_crash_shows_the_end_of_the_log(cli: Cli) -> None:
    done = cli("run", "toy_fail", "--set", "how=segfault")
    shown = [line for line in done.stderr.splitlines() if line.startswith("  | ")]
    assert any("toy_fail.py" in line for line in shown)
    assert len(shown) <= 8


def test_a_deadline_is_kept(cli: Cli) -> None:
    done = cli("run", "toy_hang", "--timeout", "1")
    assert done.returncode == 1
    assert "timed out" in done.stderr


@pytest.fixture
def hanging(command: str, cli: Cli, home: Home) -> Iterator[subprocess.Popen[str]]:
    """A `run` in the middle of training, with a pipe as stdout."""
    process = subprocess.Popen(
        [command, "run", "toy_hang", "--set", "how=polite"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("log "):
            break
    yield process
    process.kill()
    process.communicate()


def no_worker_left(folder: Path) -> bool:
    """Whether all workers end within ten seconds, because a killed one may need a moment."""

    def left() -> bool:
        return any(
            folder.name in argument
            for process in psutil.process_iter(["cmdline"])
            for argument in process.info["cmdline"] or []
        )

    end = time.monotonic() + 10
    while left() and time.monotonic() < end:
        time.sleep(0.02)
    return not left()


TALKS = """
import time
from readtrack.plugin import hookimpl

@hookimpl
def implementation():
    return dict

@hookimpl
def experiment(run):
    run.phase("train")
    for step in run.steps(10**6):
        run.log(f"step {step}")
        time.sleep(0.1)

@hookimpl
def benchmark(bench):
    return iter(())
"""


@pytest.mark.parametrize(("term", "how"), [("xterm", "told"), ("dumb", "told"), ("dumb", "cannot write")])
def test_a_terminal_that_is_closed_leaves_the_run_alone(
    command: str, cli: Cli, home: Home, term: str, how: str
) -> None:
    """A write may fail before the signal arrives."""
    home.ensure(home.plugins)
    (home.plugins / "talks.py").write_text(TALKS)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [command, "run", "talks"],
        stdin=follower,
        stdout=follower,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": term},
    )
    os.close(follower)
    threading.Thread(target=drain, args=(leader,), daemon=True).start()
    end = time.monotonic() + DEADLINE
    while not (folders := [f for f in runs(home) if store.load(f).logs]) and time.monotonic() < end:
        time.sleep(0.05)
    (folder,) = folders
    if how == "told":
        process.send_signal(signal.SIGHUP)
    else:
        os.close(leader)
    assert process.wait(DEADLINE) == 129
    time.sleep(0.5)
    attached = launcher.attach(folder)
    assert attached is not None
    while attached.poll() is None:
        attached.cancel()
        time.sleep(0.05)
    assert store.load(folder).outcome == "cancelled"


def drain(leader: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(leader, 65536):
            pass


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_and_is_the_exit_code(
    hanging: subprocess.Popen[str], home: Home, number: int, code: int
) -> None:
    hanging.send_signal(number)
    out, err = hanging.communicate(timeout=DEADLINE)
    assert hanging.returncode == code
    assert "readtrack: stopping (asked)" in err
    assert "cancelled" in out
    (folder,) = runs(home)
    assert json.loads((folder / "result.json").read_text())["outcome"] == "cancelled"
    assert no_worker_left(folder)


@pytest.mark.timing
def test_a_second_interrupt_goes_further(command: str, cli: Cli, home: Home) -> None:
    process = subprocess.Popen(
        [command, "run", "toy_hang", "--set", "how=stubborn"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("log "):
            break
    start = time.monotonic()
    for stop_level in ("asked", "interrupted", "terminated", "killed"):
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == f"readtrack: stopping ({stop_level})\n"
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert time.monotonic() - start < 7  # escalation alone would take that long
    assert no_worker_left(runs(home)[0])


def test_a_closed_pipe_stops_the_run(command: str, cli: Cli, home: Home) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{command} run toy_hang --set how=polite | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, "")
    assert done.stdout.startswith("run ")
    (folder,) = runs(home)
    assert json.loads((folder / "result.json").read_text())["outcome"] == "cancelled"
    assert no_worker_left(folder)


@pytest.mark.slow
def test_results_are_listed_the_newest_first(cli: Cli, home: Home) -> None:
    assert cli("results").returncode == 3
    for steps in ("1", "5"):
        cli("run", "toy_ok", "--set", f"steps={steps}", "--only", "experiment")
    cli("run", "toy_fail", "--only", "experiment")
    table = cli("results").stdout.splitlines()
    assert len(table) == 4
    assert "the loss is wrong" in table[1]
    assert table[2].endswith("  1 of 1 held; falls: held, last loss 0.2")
    assert table[3].endswith("  0 of 1 held; falls: missed, last loss 1")
    one = cli("results", "toy_ok").stdout
    assert "  ✓ held            falls: last loss 0.2\n" in one
    assert "toy_fail" not in one
    documents = json.loads(cli("results", "toy_ok", "--json").stdout)
    assert [run["claims"][0][1] for run in documents] == ["held", "missed"]
    assert cli("results", "nobody").returncode == 2
    assert "1 of 1 held; falls: held, last loss 0.2" in cli("show", "toy_ok").stdout
