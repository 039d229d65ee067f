"""The code on which a paper's results depend, and earlier runs that are still valid."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from readtrack import __version__
from readtrack.bench.judge import Speedup
from readtrack.claims import Bound, Claim, Figure
from readtrack.home import Home
from readtrack.plugins.code import digest
from readtrack.plugins.find import PluginRef
from readtrack.procedure import MORE_STEPS
from readtrack.runs.events import EventWriter
from readtrack.runs.job import Job, new_job
from readtrack.runs.record import Record
from readtrack.runs.store import write_end_event
from readtrack.runs.verify import LONGER, PLAIN, TIMED, Condition, Task, Verification, earlier_runs


def write(file: Path, text: str = "") -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_papers_code_includes_everything_that_it_builds_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = write(tmp_path / "flash" / "__init__.py")
    kernel = tmp_path / "flash" / "kernel.py"
    theirs = tmp_path / "site" / "their_papers"
    write(theirs / "__init__.py")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugins = {
        "flash": PluginRef("flash", "shipped", package),
        "attention": PluginRef("attention", "user", write(tmp_path / "attention.py")),
        "bert": PluginRef("bert", "path", write(tmp_path / "bert.py")),
        "gpt": PluginRef("gpt", "installed", "their_papers.gpt"),
    }
    builds_on = {"flash": ("attention",), "bert": ("flash", "no_plugin"), "attention": ()}

    def digests() -> dict[str, str]:
        return {name: digest(name, plugins, builds_on) for name in plugins}

    before = digests()
    assert len(set(before.values())) == 4
    write(tmp_path / "flash" / "__pycache__" / "kernel.pyc", "other bytes")
    assert digests() == before
    for file, changed in (
        (kernel, {"flash", "bert"}),
        (tmp_path / "attention.py", {"flash", "bert", "attention"}),
        (theirs / "gpt.py", {"gpt"}),
    ):
        write(file, "x = 1")
        after = digests()
        assert {name for name in plugins if after[name] != before[name]} == changed
        before = after


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Words."""\nx = 1  # one\nclaim = Claim(1, Figure("a", read="memory"))', True),
        ('x = 1\nclaim = Claim(1, Figure("b", where="table 2"))', True),
        ('x = 1\nclaim = Claim(2, Figure("a"))', False),
        ('x = "1"\nclaim = Claim(1, Figure("a"))', False),
        ("x = 1\nclaim = Claim(1, Figure(", False),
    ],
)
def test_words_for_readers_are_not_code(tmp_path: Path, text: str, same: bool) -> None:
    plugins = {"p": PluginRef("p", "user", write(tmp_path / "p.py", 'x = 1\nclaim = Claim(1, Figure("a"))'))}
    before = digest("p", plugins, {})
    os.utime(tmp_path / "p.py", (1.0, 1.0))
    assert digest("p", plugins, {}) == before
    write(tmp_path / "p.py", text)
    assert (digest("p", plugins, {}) == before) == same


def made(
    home: Home,
    *,
    at: str = "2026-01-01T00:00:00+00:00",
    outcome: Any = "completed",
    broken: str = "",
    code: str = "this",
    **facts: Any,
) -> str:
    """A run of `p` with seed 100 as recorded by the worker. `facts` go into its `hello` event."""
    job = new_job("p", seed=100, only="experiment", broken=broken, code=code)
    folder = home.ensure(home.runs / job.run_id)
    job.write(folder)
    events = EventWriter(folder)
    hello = {"readtrack": __version__, "python": "3.11.0", "host": socket.gethostname(), **facts}
    events.emit("hello", run_id=job.run_id, paper="p", pid=1, process_start=0.0, at=at, **hello)
    events.close()
    write_end_event(folder, outcome, "")
    assert json.loads((folder / "result.json").read_text())["outcome"] == outcome
    return job.run_id


def earlier(home: Home) -> dict[Task, str]:
    found = earlier_runs(home, {"p": "this"}, {}, device="auto", budget="quick")
    return {task: record.run_id for task, record in found.items()}


def test_the_newest_completed_run_stands(home: Home) -> None:
    made(home)
    newest = made(home, at="2026-01-02T00:00:00+00:00")
    made(home, at="2026-01-03T00:00:00+00:00", outcome="failed")
    assert earlier(home) == {Task("p", PLAIN, 100): newest}


def test_a_run_of_other_code_does_not_stand(home: Home) -> None:
    made(home, code="other")
    made(home, code="")
    assert earlier(home) == {}


def test_a_run_with_a_break_counts_only_for_this_break(home: Home) -> None:
    broken = made(home, broken="no gate")
    assert earlier(home) == {Task("p", Condition(broken="no gate"), 100): broken}


def test_a_claim_with_a_number_of_steps_also_runs_with_more_on_the_selection_seeds() -> None:
    bound = Bound("gain", ">=", 0.2)
    stated = Claim(name="gain", sentence="", paper=Figure(""), rule=(bound,), after_steps=9, chosen_on=(3, 1))
    other = replace(stated, name="other", after_steps=0)
    verification = Verification(
        {"p": [stated, other], "q": [other]},
        null=False,
        breaks=True,
        seeds=None,
        jobs=1,
        device="cpu",
        budget="quick",
        earlier={},
        code={},
        start=lambda job: pytest.fail("nothing is started"),
    )
    more = [task for task in verification._waiting if task.condition == LONGER]
    assert more == [Task("p", LONGER, 1), Task("p", LONGER, 3)]
    assert str(LONGER) == MORE_STEPS


@pytest.mark.parametrize("facts", [{"readtrack": "0.0.1"}, {"host": "elsewhere"}])
def test_a_run_of_another_version_or_machine_does_not(home: Home, facts: dict[str, str]) -> None:
    made(home, **facts)
    assert earlier(home) == {}


@pytest.mark.parametrize(("flags", "again"), [([], False), (["contended"], True), (["over-ceiling"], False)])
@pytest.mark.parametrize("of_the_claim", [True, False])
def test_a_benchmark_is_measured_again_where_others_used_the_machine(
    flags: list[str], again: bool, of_the_claim: bool
) -> None:
    claim = Claim(
        name="faster",
        sentence="It is faster.",
        paper=Figure("twice"),
        rule=(Bound("loss", "<=", 1.0), Speedup("attention", over="naive", threshold=1.5)),
    )
    measurements = [
        {
            "case": "attention" if of_the_claim else "another case",
            "axes": {},
            "variant": role,
            "role": role,
            "mode": "forward",
            "t_ns": {"value": value, "medians": [value] * 5},
            "flags": flags if role == "naive" else [],
        }
        for role, value in (("paper", 1.0), ("naive", 2.0))
    ]
    tasks = [Task("p", TIMED, seed) for seed in (100, 101, 102)]
    record = Record.from_job(new_job("p", seed=100, only="benchmark"))
    record.outcome, record.measurements = "completed", measurements
    plain = {Task("p", PLAIN, seed): Record.from_job(new_job("p", seed=seed)) for seed in range(100, 105)}

    started: list[Job] = []

    class Started(Exception):
        pass

    def start(job: Job) -> Any:
        started.append(job)
        raise Started

    verification = Verification(
        {"p": [claim]},
        null=False,
        breaks=False,
        seeds=range(100, 105),
        jobs=1,
        device="auto",
        budget="quick",
        earlier={**plain, **dict.fromkeys(tasks, record)},
        code={},
        start=start,
    )
    if again and of_the_claim:
        with pytest.raises(Started):
            verification.step()
    else:
        assert [event.kind for event in verification.step()] == ["reused"] * 8
        assert verification.done
    assert [job.only for job in started] == ["benchmark"] * (again and of_the_claim)
