"""The registry of actions, and everything made from it: keys, palette, help screen, footer, equivalent
commands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest
from driving import type_ahead, until

from readtrack.cli.app import _COMMANDS
from readtrack.present.actions import ACTIONS, GROUPS, PLACES, by_group, shown_key
from readtrack.present.words import WORDS
from readtrack.tui.actions import TYPING, hints
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.palette import Actions, Papers
from readtrack.tui.screens.code import CodeScreen
from readtrack.tui.screens.help import Help
from readtrack.tui.screens.import_list import ImportScreen
from readtrack.tui.screens.library import LibraryScreen
from readtrack.tui.screens.practice import PracticeScreen
from readtrack.tui.screens.runs import RunsScreen
from readtrack.tui.widgets.checklist import Checklist
from readtrack.tui.widgets.line_view import LineView
from readtrack.tui.widgets.run_view import RunView

OWNERS = {
    "list": LineView,
    "checklist": Checklist,
    "run": RunView,
    "library": LibraryScreen,
    "code": CodeScreen,
    "runs": RunsScreen,
    "import": ImportScreen,
    "practice": PracticeScreen,
}


def test_every_action_has_a_unique_name_key_and_sentence() -> None:
    assert max(Counter(one.id for one in ACTIONS).values()) == 1
    for one in ACTIONS:
        assert one.keys
        assert one.help.endswith("."), one.id
        assert len(one.help) <= 80, one.id
        assert len(one.label) <= 18, one.id  # the width of the palette's column
        assert one.group in GROUPS
    assert [one for _, found in by_group() for one in found] == sorted(
        ACTIONS, key=lambda one: GROUPS.index(one.group)
    )


@pytest.mark.parametrize("place", PLACES)
def test_no_key_means_two_things_in_one_place(place: frozenset[str]) -> None:
    counted = Counter(key for one in ACTIONS if one.where in place for key in one.keys)
    assert [key for key, count in counted.items() if count > 1] == []


def test_every_action_has_its_method() -> None:
    for one in ACTIONS:
        call = (one.call or one.id).split("(")[0]
        owner = ReadtrackApp if call.startswith("app.") else OWNERS[one.where]
        assert hasattr(owner, "action_" + call.removeprefix("app.")), one.id


def test_every_twin_is_a_command_of_the_command_line() -> None:
    twins = [one.cli_command for one in ACTIONS if one.cli_command]
    assert twins
    for cli_command in twins:
        program, command = cli_command.split()[:2]
        assert program == "readtrack"
        assert command in _COMMANDS, cli_command


def test_the_footer_never_loses_help_and_is_never_crowded() -> None:
    for places in ({"library", "list"}, {"library", "run"}):
        found = hints(places, lambda action_id: True)  # type: ignore[arg-type]
        assert found[0].id == "help"
        assert len(found) <= 9


@pytest.mark.parametrize("width", [30, 40, 80, 100, 160])
async def test_help_stays_in_the_footer_at_every_width(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str], width: int
) -> None:
    async with app.run_test(size=(width, 24)) as pilot:
        await pilot.pause()
        last = screen_text(app).splitlines()[-1]
        assert last.startswith(" ? help")
        assert len(re.findall(r" {3}", last.strip())) <= 8


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_help_lists_every_key(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str], size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press("?")
        await pilot.pause()
        assert isinstance(app.screen, Help)
        text = "\n".join(line.content.plain for line in app.screen.query_one(LineView).lines)
        for one in ACTIONS:
            assert " ".join(shown_key(key) for key in one.keys) in text
            assert one.help.split()[0] in text
        await pilot.press("?")
        assert isinstance(app.screen, LibraryScreen)
        await pilot.press("f1", "f1", "?", "escape")
        assert isinstance(app.screen, LibraryScreen)


def test_the_terms_of_the_pages_are_explained() -> None:
    terms = {"null run", "break", "closeness", "contended", "validation score", "reaches", "differs"}
    assert terms <= WORDS.keys()


async def test_the_palette_offers_the_actions_and_runs_them(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        provider = Actions(app.screen)
        offered = [hit async for hit in provider.discover()]
        expected = {one.label for one in ACTIONS if one.where in ("library", "checklist")}
        assert {hit.text for hit in offered} == expected - {"Palette"}
        (undo,) = (str(hit.prompt) for hit in offered if hit.text == "undo")
        assert undo.startswith("u         Undo")
        for hit in offered:
            assert re.fullmatch(r"(\S+ )+ *\S.{17} [A-Z].*\.", str(hit.prompt)), "key, label and help apart"
        await pilot.press("ctrl+p")
        await pilot.pause()
        await pilot.press(*"implemented")
        await pilot.pause(0.5)
        await pilot.press("enter", "enter")
        await pilot.pause()
        assert app.library.state("sgd") == "implemented"


async def test_the_palette_finds_papers_and_goes_to_them(app: ReadtrackApp) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.pause()
        found = [str(hit.prompt) async for hit in Papers(app.screen).search("atention need")]
        assert found[0] == "○ attention  Attention Is All You Need · 2017  r runs it"
        assert [hit async for hit in Papers(app.screen).search(" ")] == []
        await pilot.press("ctrl+p")
        await pilot.pause()
        await pilot.press(*"flash")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause()
        assert app.entry is not None
        assert app.entry.subject == "flash"
        assert app.main.on_right


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_every_key_can_be_pressed_twice_without_an_error(
    app: ReadtrackApp, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        for one in ACTIONS:
            if one.id == "leave":
                continue
            for key in one.keys:
                await pilot.press(key, key)
                escapes = 0
                while len(app.screen_stack) > 1 or app.main.on_right or app.main.filter.value:
                    await pilot.press("escape")
                    escapes += 1
                    assert escapes < 6, one.id
        assert app.is_running


async def test_letters_typed_into_the_filter_are_letters(app: ReadtrackApp) -> None:
    keys = dict.fromkeys(key for one in ACTIONS for key in one.keys if len(key) == 1 and key.isprintable())
    letters = "".join(keys)
    async with app.run_test() as pilot:
        await pilot.press("/")
        type_ahead(app, letters)
        await until(pilot, lambda: len(app.main.filter.value) == len(letters), "the letters")
        assert app.main.filter.value == letters
        assert len(app.screen_stack) == 1
    lists = ("import_list", "link")
    assert {"filter", "note", "tags", "add", "attach", "filter_runs", "run_note", *lists} == TYPING


@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
async def test_leaving_ends_with_zero(app: ReadtrackApp, key: str) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press(key)
        await pilot.pause()
    assert app.return_value == 0
