"""Runs that other processes start and end while the app is open."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import until

from readtrack.home import Home
from readtrack.library import Library
from readtrack.runs import store
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.controllers import runs as controllers_runs


async def test_an_open_app_lists_runs_of_other_processes_and_their_end(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.runs._runs_seen is not None, "the first look")
        folder = recorded(until=4.0)
        await until(pilot, lambda: [one.outcome for one in app.runs.results] == [None], "the new run")
        monkeypatch.setattr(controllers_runs, "_LOOK_AGAIN", 1000.0)
        shutil.copy(Path(__file__).parent / "recorded" / "events.jsonl", folder)
        store.write_result(folder, store.load(folder))
        await until(pilot, lambda: app.runs.results[0].outcome == "completed", "its end")
        await until(pilot, lambda: app.main.checklist.verdicts, "the verdicts in the list")
