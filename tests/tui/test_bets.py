"""Bets in the app: the dialog, the run, the outcome, and withdrawal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import message, status, until

from readtrack.bets import BetBook
from readtrack.home import Home
from readtrack.library import Library
from readtrack.runs import processes
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens.ask import ChoiceDialog
from readtrack.tui.screens.choose_bet import ChooseBet
from readtrack.tui.screens.paged import Paged

PLUGIN = """
import time
from readtrack.plugin import Bound, Claim, Figure, hookimpl

CLAIM = Claim(
    name="falls",
    sentence="The loss falls.",
    paper=Figure("from 1 to 0.1"),
    rule=(Bound("last loss", "<=", 0.5),),
    control_arm="the old way",
)


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    run.phase("train")
    while (run.artifacts.parent.parent.parent / "wait").exists():
        time.sleep(0.05)
    run.claim(CLAIM, {"last loss": 0.1})


@hookimpl
def benchmark(bench):
    return iter(())
"""


@pytest.fixture
def app(home: Home, papers_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadtrackApp]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    home.ensure(home.plugins)
    (home.plugins / "sgd.py").write_text(PLUGIN, encoding="utf-8")
    (home.plugins / "adam.py").write_text("nothing here", encoding="utf-8")
    yield ReadtrackApp(Library.open(home, papers_yaml))
    for folder in home.runs.iterdir() if home.runs.exists() else ():
        processes.kill_leftover_processes(folder.name)


async def asked(app: ReadtrackApp, pilot) -> None:
    await pilot.pause()
    assert app.main.checklist.go_to_subject("sgd")
    await pilot.pause()
    await pilot.press("O")
    await until(pilot, lambda: isinstance(app.screen, ChooseBet), "the dialog")
    await pilot.pause()


@pytest.mark.slow
async def test_a_bet_runs_the_paper_and_is_compared(
    app: ReadtrackApp, home: Home, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test(size=(100, 30)) as pilot:
        await asked(app, pilot)
        text = screen_text(app)
        assert "sgd, falls: which arm wins?" in text
        assert "the claim holds: last loss ≤ 0.5" in text
        assert "the old way" in text
        assert "readtrack run sgd --bet 'the paper'\"'\"'s:75'" in text
        await pilot.press("right", "down")
        await pilot.pause()
        assert "--bet 'the old way:80'" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: "Your bet" in status(app), "the news of the bet")
        assert "Your bet, the old way at 80 %: wrong." in status(app)
        (bet,) = BetBook(home).bets()
        assert (bet.topic, bet.sure, bet.right) == ("Optimisers", 80, False)
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, Paged), "the statistics")
        await pilot.pause()
        await pilot.press("G")
        await pilot.pause()
        assert "1 decided bet; 9 more until there is a calibration curve" in screen_text(app)


@pytest.mark.slow
async def test_a_bet_is_withdrawn_during_the_run(
    app: ReadtrackApp, home: Home, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    wait = home.ensure() / "wait"
    wait.touch()
    async with app.run_test(size=(100, 30)) as pilot:
        await asked(app, pilot)
        await pilot.press("1")
        await until(pilot, lambda: app.runs.alive, "the run")
        await pilot.pause()
        assert "Bet: the paper's wins, 75 %." in status(app)
        await pilot.press("O")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog), "the question")
        await pilot.press("w")
        await pilot.pause()
        assert "is withdrawn" in status(app)
        wait.unlink()
        await until(pilot, lambda: app.runs.results and app.runs.alive is None, "the result")
        assert "Your bet" not in status(app)
        (bet,) = BetBook(home).bets()
        assert bet.void == "withdrawn"


async def test_escape_places_no_bet_and_a_broken_plugin_is_reported(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test(size=(100, 30)) as pilot:
        await asked(app, pilot)
        await pilot.press("escape")
        await pilot.pause()
        assert app.runs.alive is None
        assert BetBook(home).bets() == []
        app.main.checklist.go_to_subject("adam")
        await pilot.press("O")
        await until(pilot, lambda: app._notifications, "the reason")
        assert "Could not read the claims of adam." in message(app)
