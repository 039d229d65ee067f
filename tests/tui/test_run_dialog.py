"""Run with options: the dialog's choices, and the run that it starts."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import DEADLINE, message, start, until
from textual.widgets import Static

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.runs import store
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.device_list import DeviceList, Devices
from readtrack.tui.screens.run_options import RunOptions, Selector


@pytest.fixture
def app(toy_app: ReadtrackApp) -> ReadtrackApp:
    return toy_app


async def test_options_become_the_job(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test() as pilot:
        await start(pilot, app, "unwritten")
        app.main.checklist.go_to_subject("toy_ok")
        await pilot.press("R")
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, RunOptions)
        await pilot.press("left", "down", "right")  # budget smoke, experiment only
        assert dialog.query_one("#budget", Selector).value == "smoke"
        await pilot.press("down", "down", "down", "backspace", *"3", "down", *"steps=7")
        command = str(dialog.query_one("#command").render())
        assert command == "$ readtrack run toy_ok --budget smoke --only experiment --seed 3 --set steps=7"
        await pilot.press("enter")
        await until(pilot, lambda: app.library.results(), "the run")
        job = store.load(home.runs / app.library.results()[0].run_id).job
        assert job is not None
        assert (job.budget, job.only, job.seed, job.settings) == ("smoke", "experiment", 3, {"steps": "7"})
        await until(pilot, lambda: app.following is None, "the end of the run")


async def test_only_available_devices_can_be_chosen(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()

    def ask(devices: DeviceList) -> Devices:
        assert answer.wait(DEADLINE)
        devices.found = [("cuda:0", "NVIDIA H100 80GB HBM3 with a long name"), ("cpu", "A processor")]
        return devices.found

    monkeypatch.setattr(DeviceList, "ask", ask)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("R")
        await pilot.pause()
        assert "auto" in screen_text(app)
        assert "looking for other devices ..." in screen_text(app)
        await pilot.press("down", "down", "down", "right")  # before the answer
        assert str(app.screen.query_one("#command").render()) == "$ readtrack run toy_ok --device cpu"
        answer.set()
        await until(pilot, lambda: "cuda:0" in screen_text(app), "the devices")
        assert "A processor" in screen_text(app)
        seen = []
        for _ in range(3):
            await pilot.press("left")
            seen.append(str(app.screen.query_one("#command").render()).removeprefix("$ readtrack run toy_ok"))
        assert seen == [" --device cuda:0", "", ""]  # the first one is at the end
        await pilot.press("right")
        await pilot.pause()
        assert "NVIDIA H100 80GB HBM3 with a" in screen_text(app)
        await pilot.press("escape", "R")
        await pilot.pause()
        assert "cuda:0: NVIDIA H100" in screen_text(app)  # the meaning of auto, requested once


async def test_devices_that_cannot_be_listed_are_reported(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(devices: DeviceList) -> Devices:
        raise ReadtrackError("PyTorch is not installed.")

    monkeypatch.setattr(DeviceList, "ask", ask)
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("R")
        await until(pilot, lambda: app._notifications, "the complaint")
        assert message(app).startswith("Could not list the devices.\nWhy: PyTorch is not installed.")
        assert isinstance(app.screen, RunOptions)


@pytest.mark.parametrize(
    ("field", "text"),
    [("#seed", "two"), ("#settings", "steps"), ("#settings", "'x=1"), ("#settings", "speed=7")],
)
async def test_invalid_options_are_reported_in_the_dialog(app: ReadtrackApp, field: str, text: str) -> None:
    async with app.run_test() as pilot:
        await start(pilot, app, "unwritten")
        app.main.checklist.go_to_subject("toy_ok")
        await pilot.press("R")
        await pilot.pause()
        app.screen.query_one(field).value = text  # type: ignore[attr-defined]
        await pilot.press("enter", "enter")
        assert isinstance(app.screen, RunOptions)
        assert app.following is None
        await pilot.press("escape")


async def test_a_place_is_chosen_and_the_run_shows_here(
    app: ReadtrackApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is this machine, behind an ssh that is a shell."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec sh -c "$*"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    home = app.library.home
    home.ensure()
    (home.root / "places.yaml").write_text(
        f"big: {{kind: ssh, host: far, python: '{sys.executable}', home: '{tmp_path / 'far'}'}}\n"
    )
    async with app.run_test() as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("toy_ok")
        await pilot.press("R")
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, RunOptions)
        dialog.query_one("#budget", Selector).value = "smoke"
        dialog.query_one("#only", Selector).value = "experiment"
        dialog.query_one("#place").focus()
        await pilot.press("right")
        await pilot.pause()
        assert "--on big" in str(dialog.query_one("#command", Static).render())
        await pilot.press("enter")
        await until(pilot, lambda: app.library.results(), "the run")
        await until(pilot, lambda: app.library.results()[0].outcome == "completed", "the end of the run")
