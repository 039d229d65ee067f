"""The reader's code may do anything. Each case is reported correctly, in a separate run."""

from __future__ import annotations

import ast
import os
import resource
import time

import pytest

from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.practice import skeleton
from readtrack.practice.desk import Desk
from readtrack.practice.sheet import definition
from readtrack.practising import job, verdicts
from readtrack.runs import launcher
from readtrack.runs.events import ExerciseJudged
from readtrack.runs.store import load

RIGHT = "    return x.transpose(-3, -2).flatten(-2)\n"


@pytest.fixture
def desk(home: Home, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = Desk(home, find(home)["attention"], "Attention")
    home.ensure(home.practice)
    return found


def run_to_end(desk: Desk, names: list[str]) -> launcher.RunHandle:
    process = launcher.start(job(desk, names), desk.home)
    while process.poll() is None:
        time.sleep(0.05)
    return process


def judged(desk: Desk, body: str, *, above: str = "") -> tuple[list[ExerciseJudged], int, launcher.RunHandle]:
    """The verdicts on two exercises, the second of which is correct, and the line at which `body` begins."""
    solved = skeleton.text("Attention", desk.sheets, solved=True)
    assert RIGHT in solved
    text = solved.replace(RIGHT, body + RIGHT) + above
    desk.file.write_text(text, encoding="utf-8")
    process = run_to_end(desk, ["merge heads", "split heads"])
    return verdicts(load(process.folder)), text[: text.index(body + RIGHT)].count("\n") + 1, process


@pytest.mark.slow
def test_after_a_catchable_error_the_next_exercise_is_judged(desk: Desk) -> None:
    text = skeleton.text("Attention", desk.sheets, solved=True)
    bodies = {  # exercise: its first lines, the message, and the reported line among these
        "weights": ("    import sys\n    sys.exit(3)\n", "it exits the program", 1),
        "split heads": ("    import os\n    os.fork()\n", "an exercise may not copy the process", 1),
        "multi-head": ("        y = [\n            1, 2]\n        y.nothing()\n", "AttributeError", 2),
    }
    for sheet in (one for one in desk.sheets if one.name in bodies):
        node = definition(ast.parse(text), sheet.qualname)
        assert node is not None
        above = text.splitlines(keepends=True)
        above.insert(node.body[ast.get_docstring(node) is not None].lineno - 1, bodies[sheet.name][0])
        text = "".join(above)
    desk.file.write_text(text, encoding="utf-8")
    found = verdicts(load(run_to_end(desk, [*bodies, "merge heads"]).folder))
    assert [one["outcome"] for one in found] == ["failed", "failed", "failed", "passed"]
    for one in found[:3]:
        body, says, at = bodies[one["name"]]
        assert says in " ".join(one["report"])
        assert one["report"][-1] == f"line {one['line']}: {body.splitlines()[at].strip()}"
        assert text.splitlines()[one["line"] - 1].strip() == body.splitlines()[at].strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    import ctypes\n    ctypes.string_at(0)\n", "crashed: SIGSEGV"),
        ("    import os\n    os._exit(7)\n", "ended without a result (exit code 7)"),
    ],
)
def test_an_error_that_ends_the_process_is_reported_at_the_exercise(desk: Desk, body: str, says: str) -> None:
    (first,), line, _ = judged(desk, body)
    assert (first["name"], first["outcome"]) == ("merge heads", "failed")
    assert says.casefold() in " ".join(first["report"]).casefold()
    assert "the exercises after it were not judged" in first["hint"]
    if "SIGSEGV" in says:
        assert first["line"] == line + 1


@pytest.mark.slow
def test_a_loop_inside_one_call_ends_soon_and_is_reported_with_its_line(desk: Desk) -> None:
    """`sum` neither releases the interpreter nor checks for signals, so no deadline inside the process can
    stop it.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    (first,), line, _ = judged(desk, "    x.numel()\n    sum(range(10**15))\n")
    assert (first["name"], first["outcome"], first["line"]) == ("merge heads", "slow", line + 1)
    assert "inside a single call" in first["report"][0]
    assert "the exercises after it were not judged" in first["hint"]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 30


@pytest.mark.slow
def test_printing_much_and_writing_files_changes_no_verdict_and_leaves_nothing(desk: Desk) -> None:
    body = (
        "    for _ in range(30000):\n        print('x' * 100)\n"
        "    with open('left.txt', 'w') as file:\n        file.write('x')\n"
    )
    (first, second), _, process = judged(desk, body)
    assert (first["outcome"], second["outcome"]) == ("passed", "passed")
    assert (process.folder / "log.txt").stat().st_size < 4 << 20
    assert not os.path.exists("left.txt")
    assert not (desk.home.practice / "left.txt").exists()


@pytest.mark.slow
def test_a_file_that_ends_the_program_on_import_is_reported_with_its_line(desk: Desk) -> None:
    judged(desk, "", above="\nimport sys\nsys.exit()\n")
    (folder,) = desk.home.runs.iterdir()
    error = load(folder).error
    assert error is not None
    last = desk.file.read_text().count("\n")
    assert f"attention.py:{last}: SystemExit" in str(error["message"])
