"""The table of all runs: its content and order, actions on runs, and the comparison of two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.runs import store
from readtrack.runs.job import Job
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens.paged import Paged
from readtrack.tui.screens.runs import RunsScreen

Screen = Callable[[ReadtrackApp], str]
IDS = ["20260101-000000-adam-aaaa", "20260102-000000-adam-bbbb", "20260103-000000-sgd-cccc"]


@pytest.fixture(autouse=True)
def _three_runs(recorded: Callable[..., Path], home: Home) -> None:
    """Two complete runs of adam, and an interrupted run of sgd."""
    for run_id in IDS[:2]:
        recorded(run_id=run_id)
    cut = recorded(until=4.0, run_id=IDS[2])
    job = json.loads((cut / "job.json").read_text())
    (cut / "job.json").write_text(json.dumps({**job, "paper": "sgd"}))
    events = cut / "events.jsonl"
    events.write_text(events.read_text().replace('"paper": "adam"', '"paper": "sgd"'))
    store.write_end_event(cut, "cancelled", "stopped \x1b[31mhere")
    for number, run_id in enumerate(IDS, 1):
        path = home.runs / run_id / "result.json"
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({**fields, "started": f"2026-01-0{number}T00:00:00+00:00"}))


@pytest.mark.parametrize("width", [80, 120, 160])
async def test_the_condition_of_a_run_is_shown_in_full(
    app: ReadtrackApp, home: Home, screen_text: Screen, width: int
) -> None:
    path = home.runs / IDS[0] / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "condition": "edited: model.py +1 −1"}))
    async with app.run_test(size=(width, 24)) as pilot:
        await opened(pilot, app)
        assert "edited: model.py +1 −1" in screen_text(app)


async def opened(pilot: Pilot[int], app: ReadtrackApp) -> RunsScreen:
    await app.workers.wait_for_complete()
    await pilot.pause()
    await pilot.press("H")
    await pilot.pause()
    assert isinstance(app.screen, RunsScreen)
    return app.screen


def listed(text: str) -> list[str]:
    return [line.split("2026-")[0].strip() for line in text.splitlines() if " 2026-01-0" in line]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_all_runs_are_listed_sorted_and_filtered(
    app: ReadtrackApp, screen_text: Screen, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        await opened(pilot, app)
        assert listed(screen_text(app)) == ["sgd", "adam", "adam"]
        assert "3 runs" in screen_text(app)
        assert all(hint in screen_text(app) for hint in ("enter open", "d delete", "esc back"))
        await pilot.press("s")
        await pilot.pause()
        assert listed(screen_text(app)) == ["adam", "adam", "sgd"]
        await pilot.press("slash", *"cancel", "enter")
        await pilot.pause()
        assert listed(screen_text(app)) == ["sgd"]
        assert "1 of 3 runs" in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert len(listed(screen_text(app))) == 3
        await pilot.press("escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize("open_before", [False, True])
async def test_a_run_that_is_copied_into_the_home_is_listed(
    app: ReadtrackApp, home: Home, screen_text: Screen, open_before: bool
) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        runs = await opened(pilot, app)
        if not open_before:
            await pilot.press("escape")
        copied = home.runs / "20260104-000000-adam-dddd"
        shutil.copytree(home.runs / IDS[0], copied)
        if open_before:
            app.post_message(events.AppFocus())
            await pilot.pause()
        else:
            runs = await opened(pilot, app)
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert copied.name in [run.run_id for run in runs._shown()]
        assert "4 runs" in screen_text(app)


async def test_a_pinned_run_is_first_and_is_not_deleted(
    app: ReadtrackApp, home: Home, screen_text: Screen
) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app)
        await pilot.press("j", "j", "p", "n", *"the good one", "enter")
        await pilot.pause()
        assert store.is_pinned(home.runs / IDS[0])
        assert store.note(home.runs / IDS[0]) == "the good one\n"
        first = screen_text(app).splitlines()[2]
        assert "★" in first
        assert "the good one" in first
        await pilot.press("d", "d")
        await pilot.pause()
        assert "is pinned" in screen_text(app)
        await pilot.press("p", "d", "d")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert not (home.runs / IDS[0]).exists()
        assert len(listed(screen_text(app))) == 2


async def test_enter_opens_a_run_of_any_paper(app: ReadtrackApp) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app)
        await pilot.press("j", "enter")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert app.main.on_run
        assert app.entry is not None
        assert app.entry.plugin == "adam"


async def test_a_second_enter_finds_the_screen_gone_and_changes_nothing(app: ReadtrackApp) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app)
        runs = app.screen
        assert isinstance(runs, RunsScreen)
        runs.dismiss(IDS[0])
        runs.dismiss(IDS[0])
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert app.screen is app.main
        assert app.main.on_run


async def test_the_same_job_is_created_again(
    app: ReadtrackApp, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Job] = []
    monkeypatch.setattr(app.runs, "start", started.append)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app)
        await pilot.press("j", "r")
        await pilot.pause()
        (job,) = started
        before = store.load(home.runs / IDS[1]).job
        assert before is not None
        assert job.run_id != before.run_id
        assert (job.paper, job.budget, job.seed) == ("adam", before.budget, before.seed)


async def test_two_runs_are_compared(app: ReadtrackApp, screen_text: Screen) -> None:
    async with app.run_test(size=(140, 60)) as pilot:
        await opened(pilot, app)
        await pilot.press("=")
        await pilot.pause()
        assert "Mark two runs" in screen_text(app)
        await pilot.press("space", "space", "=")  # sgd and adam
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "runs are of different papers: " in screen_text(app)
        await pilot.press("space", "=")  # the third replaces the first
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert isinstance(app.screen, Paged)
        text = screen_text(app)
        assert "Two runs of adam" in text
        assert f"a {IDS[0]}" in text
        assert f"b {IDS[1]}" in text
        assert "a and b in one chart" in text
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1


def test_a_live_run_cannot_be_deleted(recorded: Callable[..., Path]) -> None:
    folder = recorded(until=4.0, run_id="20260104-000000-adam-dddd")
    with pytest.raises(ReadtrackError, match="has not ended"):
        store.delete(folder)
    assert folder.exists()


async def test_a_single_run_is_counted_as_one(home: Home, app: ReadtrackApp, screen_text: Screen) -> None:
    for run_id in IDS[1:]:
        store.delete(home.runs / run_id)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app)
        head = screen_text(app).splitlines()[0]
        assert "1 run " in head


async def test_a_run_that_cannot_be_read_is_named_once_and_the_others_are_there(
    app: ReadtrackApp, home: Home, screen_text: Screen
) -> None:
    odd = home.runs / "20260104-000000-sgd-dddd"
    odd.mkdir()
    (odd / "job.json").write_text("[" * 5000)
    async with app.run_test() as pilot:
        await opened(pilot, app)
        app.runs.read_results()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert len(listed(screen_text(app))) == 3
        named = [one.message for one in app._notifications if odd.name in one.message]
        assert named == [f"run {odd.name}: job.json cannot be read: it is nested too deeply"]
