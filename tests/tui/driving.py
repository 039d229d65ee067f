"""Helpers for tests of a running app: wait, start a run, read messages."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens.run_options import Options

DEADLINE = 60.0  # seconds


async def until(pilot: Pilot[int], condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        await pilot.pause(0.05)


async def start(pilot: Pilot[int], app: ReadtrackApp, paper: str, **fields: object) -> None:
    await pilot.pause()
    assert app.main.checklist.go_to_subject(paper)
    await pilot.pause()
    if fields:
        app._start(paper, Options(fields={"budget": "smoke", "only": "experiment", **fields}))
    else:
        await pilot.press("r")
    await pilot.pause()


def type_ahead(app: ReadtrackApp, text: str) -> None:
    """Presses the keys of a text at once, without waiting for the effect of any of them."""
    assert app._driver is not None
    for character in text:
        name = character if character.isalnum() else _character_to_key(character)
        app._driver.process_message(events.Key(name, character))


def message(app: ReadtrackApp) -> str:
    """The newest notification."""
    return list(app._notifications)[-1].message


def status(app: ReadtrackApp) -> str:
    """The line above the footer."""
    return str(app.main.query_one("#status").render())
