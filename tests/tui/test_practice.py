"""The practice screen: from an empty file to "implemented", and its keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import status, until

import readtrack
from readtrack import practising
from readtrack.home import Home
from readtrack.library import Library
from readtrack.practice.desk import Desk
from readtrack.runs.events import Outcome
from readtrack.runs.job import Job, new_job
from readtrack.runs.launcher import RunHandle
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens.ask import ChoiceDialog
from readtrack.tui.screens.library import LibraryScreen
from readtrack.tui.screens.paged import Paged
from readtrack.tui.screens.practice import PracticeScreen

RIGHT = "    velocity = momentum * velocity + gradient\n    return point - lr * velocity, velocity"
EMPTY = "    raise NotImplementedError"
Read = Callable[[ReadtrackApp], str]


@pytest.fixture
def app(home: Home, papers_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> ReadtrackApp:
    """The app with the plugin that `readtrack plugins new flash` writes."""
    template = Path(readtrack.__file__).parent / "cli" / "templates" / "plugin.py.txt"
    home.ensure(home.plugins)
    (home.plugins / "flash.py").write_text(template.read_text().replace("@NAME@", "flash"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(practising, "proof", smoke_proof)
    monkeypatch.setattr("readtrack.tui.screens.practice.proof", smoke_proof)
    return ReadtrackApp(Library.open(home, papers_yaml))


def smoke_proof(desk: Desk) -> Job:
    return new_job(desk.paper, practice=desk.names, budget="smoke")


def write(app: ReadtrackApp, there: str, instead: str) -> None:
    """Change the reader's file as an editor would."""
    file = app.library.home.practice / "flash.py"
    text = file.read_text()
    assert there in text
    time.sleep(0.01)  # so that the modification time differs
    file.write_text(text.replace(there, instead))


async def opened(app: ReadtrackApp, pilot) -> PracticeScreen:
    await pilot.pause()
    assert app.main.checklist.go_to_subject("flash")
    await pilot.pause()
    await pilot.press("P")
    await pilot.pause()
    assert isinstance(app.screen, PracticeScreen)
    return app.screen


@pytest.mark.slow
async def test_from_an_empty_file_over_a_mistake_to_implemented_and_back(
    app: ReadtrackApp, screen_text: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = [(EMPTY, RIGHT.replace("point - lr", "point + lr"))]
    monkeypatch.setenv("EDITOR", "vim")
    monkeypatch.setattr(app.notes, "_run_editor", lambda command: [write(app, *edit) for edit in edits])
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        assert "Press e to write the skeleton" in screen_text(app)
        assert "0 of 1" in screen_text(app)
        await pilot.press("e")
        await until(pilot, lambda: "✗ 1 step" in screen_text(app), "the verdict")
        await until(pilot, lambda: screen.bench.check is None, "the end of the check")
        await pilot.pause()
        text = screen_text(app)
        assert "✗ wrong result" in text
        assert "1 try" in text
        assert "expected" in text
        assert "heavy_ball(point, velocity, gradient, lr, momentum)   from rest" in text
        runs = app.library.home.runs
        await until(pilot, lambda: not list(runs.iterdir()), "the end of a check of the empty file")

        write(app, "point + lr", "point - lr")  # saved by an editor in another window
        await until(pilot, lambda: "1 of 1" in screen_text(app), "the check after saving")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog), "the question after the run")
        await pilot.press("i")
        await pilot.pause()
        assert app.library.state("flash") == "implemented"
        text = screen_text(app)
        assert "✓ 1 step" in text
        assert all(word in text for word in ("naive", "yours", "ours", "strongest", "as fast as naive"))
        assert "fewer steps" in text
        assert isinstance(app.screen, PracticeScreen)  # nothing closes
        await pilot.press("u")
        await pilot.pause()
        assert app.library.state("flash") == "todo"
        assert "your file has changed" not in text.casefold()
        await pilot.press("w")
        write(app, "momentum * velocity", "velocity * momentum")
        await pilot.press("c")
        await until(pilot, lambda: screen.bench.check is None, "the end of the check")
        assert "Your file has changed since this run. p repeats the run." in " ".join(
            screen_text(app).split()
        )
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, LibraryScreen)
        (run,) = app.runs.results
        assert run.condition == "practice: step"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_hints_skip_reset_solution_and_choosing(
    app: ReadtrackApp, screen_text: Read, size: tuple[int, int], golden: Callable[[str, str], None]
) -> None:
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("w", "h")
        await pilot.pause()
        assert "Hint 1 of 2: The old velocity is multiplied by the momentum." in screen_text(app)
        golden(f"practice-{size[0]}", screen_text(app))
        await pilot.press("s")
        await pilot.pause()
        assert "⊘ 1 step" in screen_text(app)
        await pilot.press("n")
        await pilot.pause()
        assert "All exercises are done or skipped." in screen_text(app)
        await pilot.press("1")
        await pilot.pause()
        assert "○ 1 step →" in screen_text(app)
        screen.desk.write()
        write(app, EMPTY, RIGHT)
        await pilot.press("o")
        await pilot.pause()
        assert "Show the paper's code for step?" in screen_text(app)
        await pilot.press("x")
        assert isinstance(app.screen, PracticeScreen)
        assert not screen.desk.standings()["step"].solution
        await pilot.press("o", "o")
        await pilot.pause()
        assert isinstance(app.screen, Paged)
        assert "+    velocity = torch.add(gradient" in screen_text(app)
        await pilot.press("escape", "r", "r")
        await pilot.pause()
        assert EMPTY in screen.desk.file.read_text()
        assert "step is empty again" in screen_text(app)
        assert len(list((app.library.home.practice / "old").iterdir())) == 1
        await pilot.press("p", "i", "tab", "x")
        await pilot.pause()
        assert screen.page.has_focus
        assert app.library.state("flash") == "todo"
        assert "Nothing is running for this paper." in screen_text(app)


@pytest.mark.slow
async def test_leaving_keeps_a_check_and_stopping_ends_it(app: ReadtrackApp, screen_text: Read) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        screen.desk.write()
        write(app, EMPTY, RIGHT)
        await until(pilot, lambda: screen.bench.check, "a check after saving")
        await pilot.press("escape")
        await pilot.pause()
        assert "The check of flash continues. P shows it." in status(app)
        await until(pilot, lambda: "flash: it passes" in status(app), "the check's result in the list")
        assert app.runs.alive is None  # speed and claims were not requested
        assert not app.runs.results
        screen = await opened(app, pilot)
        await until(pilot, lambda: screen.bench.check is None, "no check of a file that is known")
        await pilot.press("w")
        write(app, "    return point", "    while True:\n        pass\n    return point")
        await pilot.press("c")
        await until(pilot, lambda: screen.bench.check, "a check on request")
        await pilot.press("x")
        await until(pilot, lambda: screen.bench.check is None, "the end of the check")
        assert "The check was stopped." in screen_text(app)
        assert screen.desk.standings()["step"].tries == 1


async def test_a_check_ends_with_the_app(
    app: ReadtrackApp, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll, dying = RunHandle.poll, [None, None, None]

    def poll_slow_death(handle: RunHandle) -> Outcome | None:
        """A killed process takes a moment to end, and much longer on a busy machine."""
        return dying.pop() if handle.stop_level and dying else poll(handle)

    monkeypatch.setattr(RunHandle, "poll", poll_slow_death)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot)
        screen.desk.write()
        write(app, EMPTY, "    while True:\n        pass")
        await until(pilot, lambda: screen.bench.check, "a check after saving")
        check = screen.bench.check
        assert check is not None
    assert app.practice.cancelled == "flash"
    assert not dying
    assert check.process.poll() is not None
    assert not list(home.runs.iterdir())


@pytest.mark.slow
async def test_a_file_that_cannot_be_read_is_reported_with_its_line(
    app: ReadtrackApp, screen_text: Read
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        screen.desk.write()
        write(app, EMPTY, "    return (")
        await until(pilot, lambda: screen.bench.problem, "the problem")
        await pilot.pause()
        text = " ".join(screen_text(app).split())
        assert "was never closed" in text
        assert "flash.py:" in text
        await pilot.press("r", "r")
        await pilot.pause()
        assert "Fix it first." in " ".join(screen_text(app).split())


async def test_a_paper_without_exercises_gives_the_reason(app: ReadtrackApp, screen_text: Read) -> None:
    why = "its idea is a data set, and what trains on it is the network of the paper that it builds on."
    (app.library.home.plugins / "adam.py").write_text(f'NO_EXERCISES = "{why}"\n')
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        await pilot.press("P")
        await pilot.pause()
        assert isinstance(app.screen, Paged)
        said = " ".join(screen_text(app).replace("│", " ").split())
        assert f"adam has no exercises: {why}" in said
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, LibraryScreen)
