"""`readtrack verify` with toy plugins: what is run, what is taken from earlier runs, and every exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from readtrack.cli import app
from readtrack.home import Home
from readtrack.library import Library

Cli = Callable[..., subprocess.CompletedProcess[str]]
DEADLINE = 60.0

PLUGIN = """
import time
from readtrack.plugin import Bound, Claim, hookimpl

CLAIM = Claim(
    name="seed", sentence="It is the seed.", paper="100 | 101", rule=(Bound("number", "<=", {limit}.0),),
    seeds={seeds}, control="none", deviations="all",
)

@hookimpl
def implementation():
    return dict

@hookimpl
def experiment(run):
    run.phase("train")
    {body}
    run.claim(CLAIM, {{"number": run.seed}})

@hookimpl
def benchmark(bench):
    raise ValueError("nobody asked for a benchmark")
"""


@pytest.fixture
def plugins(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the plugins of a test. Workers import a torch that costs nothing."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "toys" / "light"))
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(folder))
    return folder


def write(folder: Path, name: str, *, limit: int = 101, seeds: int = 1, body: str = "pass") -> Path:
    """A plugin that is a few seconds old."""
    file = folder / f"{name}.py"
    file.write_text(PLUGIN.format(limit=limit, seeds=seeds, body=body))
    past = time.time() - 5
    os.utime(file, (past, past))
    return file


def runs(home: Home) -> dict[str, dict[str, object]]:
    """Run id to what it was asked for and how it ended, by seed."""
    found = []
    for folder in home.runs.iterdir() if home.runs.exists() else []:
        result = json.loads((folder / "result.json").read_text())
        found.append({**json.loads((folder / "job.json").read_text()), **result})
    return {run["run_id"]: run for run in sorted(found, key=lambda run: run["seed"])}


def test_all_seeds_are_run_and_the_mean_decides(cli: Cli, home: Home, plugins: Path, tmp_path: Path) -> None:
    write(plugins, "toy_sgd")
    done = cli("verify", "toy_sgd", "--jobs", "2", "--output", "new/table.md")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reproduced      toy_sgd: seed: number 101 (100 to 102)\n"
    assert [(run["seed"], run["only"], run["budget"]) for run in runs(home).values()] == [
        (seed, "experiment", "quick") for seed in (100, 101, 102)
    ]
    page = (tmp_path / "new" / "table.md").read_text(encoding="utf-8")
    assert "| number ≤ 101 (mean) | number 101 (100 to 102) | 100 \\| 101 | reproduced | none | all |" in page
    assert "- budget: quick\n" in page
    assert "- software: readtrack 0." in page
    assert done.stderr.splitlines()[-1] == "readtrack: 1 reproduced; the table is new/table.md"
    assert "(3/3)" in done.stderr


def test_a_claim_can_ask_for_more_seeds(cli: Cli, home: Home, plugins: Path) -> None:
    write(plugins, "toy_sgd", seeds=3)
    done = cli("verify", "toy_sgd", "--seeds", "1", "--first-seed", "7")
    assert done.returncode == 0
    assert [run["seed"] for run in runs(home).values()] == [7, 8, 9]
    assert done.stdout.endswith("number 8 (7 to 9)\n")


def test_a_claim_that_does_not_hold_is_exit_code_0(cli: Cli, plugins: Path) -> None:
    write(plugins, "toy_sgd", limit=99)
    done = cli("verify", "toy_sgd", "--seeds", "1")
    assert (done.returncode, done.stdout) == (0, "not reproduced  toy_sgd: seed: number 100\n")


def test_what_is_there_is_taken(cli: Cli, home: Home, plugins: Path, tmp_path: Path) -> None:
    write(plugins, "toy_sgd")
    first = cli("verify", "toy_sgd", "--seeds", "2")
    before = runs(home)
    again = cli("verify", "toy_sgd", "--seeds", "3")
    assert again.returncode == 0
    assert first.stdout != again.stdout == "reproduced      toy_sgd: seed: number 101 (100 to 102)\n"
    new = {run_id: run for run_id, run in runs(home).items() if run_id not in before}
    assert [run["seed"] for run in new.values()] == [102]
    for count, run_id in enumerate(before, 1):
        assert f"taken from {run_id} ({count}/3)" in again.stderr


@pytest.mark.parametrize("what", ["fresh", "device", "budget", "plugin", "parent", "settings"])
def test_what_would_not_come_out_the_same_is_run_again(
    cli: Cli, home: Home, plugins: Path, papers: Path, what: str
) -> None:
    text = papers.read_text(encoding="utf-8")
    papers.write_text(
        text.replace("  toy_adam:\n", "  toy_adam:\n    builds_on: [toy_sgd]\n"), encoding="utf-8"
    )
    parent, plugin = write(plugins, "toy_sgd"), write(plugins, "toy_adam", body="run.option('a', 1)")
    if what == "settings":
        cli("run", "toy_adam", "--seed", "100", "--only", "experiment", "--set", "a=2")
    else:
        assert cli("verify", "toy_adam", "--seeds", "1").returncode == 0
    assert len(runs(home)) == 1
    arguments = {"fresh": ["--fresh"], "device": ["--device", "cpu"], "budget": ["--budget", "full"]}
    if what in ("plugin", "parent"):
        os.utime(plugin if what == "plugin" else parent)
    done = cli("verify", "toy_adam", "--seeds", "1", *arguments.get(what, []))
    assert (done.returncode, len(runs(home))) == (0, 2)
    assert "taken" not in done.stderr


def test_a_failed_run_is_exit_code_1_and_is_tried_again(
    cli: Cli, home: Home, plugins: Path, tmp_path: Path
) -> None:
    write(plugins, "toy_adam", body="assert run.seed != 101, 'the loss | is wrong'")
    write(plugins, "toy_sgd")
    done = cli("verify", "toy_adam", "toy_sgd", "--seeds", "2", "--output", "table.md")
    assert done.returncode == 1
    # In the order of the list.
    first, second, third = done.stdout.splitlines()
    assert first.startswith("reproduced      toy_sgd: seed: ")
    assert second == "not judged      toy_adam: seed: no completed run with seed 101"
    assert "toy_adam: seed 101: toy_adam failed in train: AssertionError: the loss | is wrong" in third
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "not judged: no completed run with seed 101" in page
    remark = page.split("## Without a verdict")[1]
    assert "the loss \\| is wrong (toy\\_adam.py:" in remark
    assert str(plugins) in third
    assert str(plugins) not in remark

    write(plugins, "toy_adam")  # older than the runs that completed
    again = cli("verify", "toy_adam", "toy_sgd", "--seeds", "2")
    assert again.returncode == 0
    assert again.stderr.count("taken from") == 3
    assert len(runs(home)) == 5


def test_an_interrupt_keeps_what_is_finished(
    cli: Cli, command: str, home: Home, plugins: Path, tmp_path: Path
) -> None:
    slow = "[time.sleep(0.01) for _ in run.steps(10**9 if run.seed == 101 else 1)]"
    write(plugins, "toy_sgd", body=slow)
    process = subprocess.Popen(
        [command, "verify", "toy_sgd", "--output", "table.md"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("verify  toy_sgd, seed 101: started"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "readtrack: stopping (asked)" in err
    assert "the same command goes on" in err
    assert [(run["seed"], run["outcome"]) for run in runs(home).values()] == [
        (100, "completed"),
        (101, "cancelled"),
    ]
    assert not (tmp_path / "table.md").exists()

    write(plugins, "toy_sgd")
    again = cli("verify", "toy_sgd")
    assert (again.returncode, again.stderr.count("taken from")) == (0, 1)
    assert len(runs(home)) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("toy_sgd", "--device", "warp9"), 2, "warp9"),
        (("nobody",), 2, "nobody"),
        (("toy_newton",), 3, "plugins new toy_newton"),
        (("toy_sgd", "--seeds", "0"), 2, "--seeds"),
        (("toy_sgd", "--output", "."), 2, "--output ."),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    cli: Cli, plugins: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    write(plugins, "toy_sgd")
    done = cli("verify", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("readtrack: ")
    assert said in last


def test_without_names_every_runnable_paper_is_verified_into_docs(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("toy_adam", "toy_sgd", "unlisted"):
        write(plugins, name)
    found = Library.runnable
    monkeypatch.setattr(
        Library,
        "runnable",
        lambda self: {name: ref for name, ref in found(self).items() if ref.origin == "path"},
    )
    monkeypatch.chdir(tmp_path)
    assert app.run(["verify", "--seeds", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said] == ["toy_sgd:", "toy_adam:", "unlisted:"]
    assert (tmp_path / "docs" / "verdicts.md").read_text(encoding="utf-8").count("| seed: ") == 3
