"""Keys changed in `keys.yaml`: pressing them, and their names on the screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from driving import message, status, type_ahead, until

from readtrack.home import Home
from readtrack.present.actions import ACTIONS, remap
from readtrack.tui.app import ReadtrackApp


@pytest.fixture(autouse=True)
def _default_keys() -> Iterator[None]:
    yield
    remap({})


async def test_footer_help_palette_and_messages_follow_the_file(
    app: ReadtrackApp, home: Home, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    home.ensure()
    home.keys_yaml.write_text("help: f2\nundo: [f3, u]\nmark_read: 9\nsync_page: Z\n")
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("flash")
        await pilot.pause()
        assert screen_text(app).splitlines()[-1].startswith(" f2 help")
        await pilot.press("9")
        await pilot.pause()
        assert app.library.state("flash") == "read"
        assert "f3 undoes" in status(app)
        await pilot.press("3")
        assert app.library.state("flash") == "read"
        await pilot.press("f3")
        await pilot.press("f2")
        await pilot.pause()
        assert app.library.state("flash") == "todo"
        assert "f3 u           Undo the last change" in screen_text(app)
        await pilot.press("f2")  # closes it
        await pilot.pause()
        assert len(app.screen_stack) == 1
        await pilot.press("ctrl+p", *"watch the sync")
        await pilot.pause(0.5)
        assert "Z         Watch the sync" in screen_text(app)


async def test_a_wrong_line_is_reported_and_the_app_starts(app: ReadtrackApp, home: Home) -> None:
    home.ensure()
    home.keys_yaml.write_text("udno: z\nmark_read: 9\n")
    async with app.run_test() as pilot:
        await pilot.pause()
        assert message(app) == (
            "Could not use a line of keys.yaml.\n"
            "Why: keys.yaml, line 1: there is no action 'udno'; the nearest is 'undo'.\n"
            "Next step: `readtrack keys` lists actions and keys."
        )
        app.main.checklist.go_to_subject("flash")
        await pilot.press("9")
        assert app.library.state("flash") == "read"


async def test_the_file_is_read_again_with_the_list(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("flash")
        home.ensure()
        home.keys_yaml.write_text("mark_read: 9\n")
        await pilot.press("ctrl+r")
        await pilot.pause()
        await pilot.press("9")
        assert app.library.state("flash") == "read"


async def test_changed_keys_typed_into_the_filter_are_letters(app: ReadtrackApp, home: Home) -> None:
    home.ensure()
    # Each letter and sign is assigned to the next action of the list.
    actions = [one for one in ACTIONS if one.where == "library" and len(one.default) == 1]
    letters = [one.default for one in actions]
    moved = dict(zip((one.id for one in actions), letters[1:] + letters[:1], strict=True))
    home.keys_yaml.write_text("".join(f"{name}: '{letter}'\n" for name, letter in moved.items()))
    async with app.run_test() as pilot:
        await pilot.pause()
        assert not app._notifications
        await pilot.press(moved["filter"])
        type_ahead(app, "".join(letters))
        await until(pilot, lambda: len(app.main.filter.value) == len(letters), "the letters")
        assert app.main.filter.value == "".join(letters)
        assert len(app.screen_stack) == 1
