"""Keys and messages that arrive before a screen has its widgets, or after it was closed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual import events
from textual.screen import Screen

from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens import ask
from readtrack.tui.screens.ask import Choice, ChoiceDialog, InputDialog
from readtrack.tui.screens.help import Help
from readtrack.tui.screens.note import NoteScreen
from readtrack.tui.screens.run_options import Options, RunOptions
from readtrack.tui.screens.sync import SyncScreen
from readtrack.tui.sync_task import Syncing

SCREENS: dict[str, Callable[[ReadtrackApp], Screen[object]]] = {
    "ask": lambda app: ChoiceDialog("Which?", [Choice("a", "this"), Choice("b", "that")]),
    "prompt": lambda app: InputDialog("Which?", "type it", lambda line: None),
    "help": lambda app: Help(words_first=False),
    "note": lambda app: NoteScreen("Note", "text"),
    "options": lambda app: RunOptions("adam", Options(), None),
    "sync": lambda app: SyncScreen(Syncing(app.library, ["adam"])),
}


def own_updates(screen: Screen[object]) -> list[str]:
    """The methods of a screen's own class that draw or answer without arguments."""
    return [name for name in vars(type(screen)) if name.startswith(("refresh_", "action_", "_show_"))]


@pytest.mark.parametrize("name", SCREENS)
async def test_a_screen_without_its_widgets_can_be_drawn_and_answered(app: ReadtrackApp, name: str) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        for update in [*own_updates(SCREENS[name](app)), None]:
            screen = SCREENS[name](app)
            app.push_screen(screen)
            assert not screen.is_mounted
            if update is not None:
                getattr(screen, update)()
            await pilot.pause()
            if app.screen is screen:
                await pilot.press("escape")
            assert len(app.screen_stack) == 1
            if update is not None and update.startswith("refresh_"):
                getattr(screen, update)()
        assert app.is_running


@pytest.mark.parametrize("opener", ["w", "R", "n", "t", "asterisk", "question_mark"])
async def test_keys_that_come_with_the_one_that_opens_a_screen(
    app: ReadtrackApp, opener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_start", lambda *chosen: None)
    characters = {"slash": "/", "asterisk": "*", "question_mark": "?"}
    async with app.run_test() as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("attention")
        app.syncs.last = Syncing(app.library, ["adam"])
        for key in ("enter", "escape", "ctrl+s", "c", "w", "slash", "n", "t", "ctrl+q"):
            for name in (opener, key, key):
                character = characters.get(name, name)
                assert app._driver is not None
                app._driver.process_message(events.Key(name, character if len(character) == 1 else None))
            await pilot.pause()
            while app.is_running and (len(app.screen_stack) > 1 or app.focused is app.main.filter):
                await pilot.press("escape")
    assert app.return_code == 0


async def test_a_dialog_that_opens_by_itself_takes_no_answer_from_a_reader_who_is_typing(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "_PAUSE", 0.3)
    answers: list[str | None] = []
    asked = ChoiceDialog("Which?", [Choice("a", "this"), Choice("b", "that")], unasked=True)
    async with app.run_test() as pilot:
        await pilot.pause()
        app.push_screen(asked, answers.append)
        await pilot.pause()
        await pilot.press("slash", "b", "a", "enter", "escape", "r")
        assert (app.screen, answers) == (asked, [])
        await pilot.pause(0.4)
        await pilot.press("b")
        assert answers == ["b"]
