"""States, tags, ratings and notes: keys on the screen, and lines in the files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import status, until
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.tui.app import ReadtrackApp

SIZES = [(80, 24), (160, 50)]


def journal(home: Home) -> list[dict[str, object]]:
    if not home.journal.exists():
        return []
    return [json.loads(line) for line in home.journal.read_text(encoding="utf-8").splitlines()]


async def go_to(pilot: Pilot[int], subject: str) -> None:
    app = pilot.app
    assert isinstance(app, ReadtrackApp)
    await pilot.pause()
    assert app.main.checklist.go_to_subject(subject)
    await pilot.pause()


@pytest.mark.parametrize("size", SIZES)
async def test_each_state_has_a_key_and_a_second_press_changes_nothing(
    app: ReadtrackApp, home: Home, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        await go_to(pilot, "flash")
        for key, state in (
            ("2", "reading"),
            ("3", "read"),
            ("4", "implemented"),
            ("5", "skipped"),
            ("1", "todo"),
        ):
            await pilot.press(key, key)
            assert app.library.state("flash") == state
            written = journal(home)
            assert written[-1]["paper"] == "flash"
            assert written[-1]["state"] == state
        assert len(journal(home)) == 5


async def test_changes_by_another_process_are_shown_on_focus(
    app: ReadtrackApp, home: Home, papers_yaml: Path, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        await go_to(pilot, "flash")
        other = Library.open(home, papers_yaml)
        other.mark("flash", "read")
        other.change_tags("flash", add={"elsewhere"}, remove=set())
        app.post_message(events.AppFocus())
        await pilot.pause()
        assert app.library.state("flash") == "read"
        assert "#elsewhere" in screen_text(app)
        assert app.entry is not None
        assert app.entry.subject == "flash"


async def test_changes_by_another_process_are_shown_without_a_key(
    app: ReadtrackApp, home: Home, papers_yaml: Path, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        await go_to(pilot, "flash")
        Library.open(home, papers_yaml).change_tags("flash", add={"elsewhere"}, remove=set())
        await until(pilot, lambda: "#elsewhere" in screen_text(app), "the tag")


@pytest.mark.parametrize("size", SIZES)
async def test_space_ticks_and_unticks_and_undo_takes_back(
    app: ReadtrackApp, home: Home, papers_yaml: Path, size: tuple[int, int]
) -> None:
    before = papers_yaml.read_bytes()
    async with app.run_test(size=size) as pilot:
        await go_to(pilot, "attention")
        await pilot.press("space")
        assert app.library.state("attention") == "read"
        await pilot.press("space")
        assert app.library.state("attention") == "todo"
        await pilot.press("u")
        assert app.library.state("attention") == "read"
        await pilot.press("u")
        assert app.library.state("attention") == "todo"
        await pilot.press("u")  # there is nothing to undo: a message, not an error
        assert "nothing to undo" in str(app.main.query_one("#status").render())
    assert papers_yaml.read_bytes() == before
    assert len(journal(home)) == 4


async def test_a_row_with_several_papers_marks_them_all_and_one_undo_takes_it_back(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("4")  # the cursor starts on the first row
        assert {app.library.state(paper) for paper in ("sgd", "adam")} == {"implemented"}
        await pilot.press("u")
        assert {app.library.state(paper) for paper in ("sgd", "adam")} == {"read"}


async def test_a_row_without_papers_has_its_own_state(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("G", "3")
        assert app.entry is not None
        assert app.entry.subject.startswith("row:")
        assert app.library.state(app.entry.subject) == "read"
    assert str(journal(home)[0]["paper"]).startswith("row:")


async def test_a_key_right_after_a_move_acts_on_the_new_line(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        app.main.checklist.action_last()
        app.action_mark("read")
        assert app.entry is not None
        assert app.library.state(app.entry.subject) == "read"
        assert app.entry.text == "https://example.org/a-page"


async def test_a_section_has_no_state(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("}", "3", "3")
        assert "A section has no state" in str(app.main.query_one("#status").render())
    assert journal(home) == []


async def test_states_are_there_after_a_restart(app: ReadtrackApp, home: Home, papers_yaml: Path) -> None:
    async with app.run_test() as pilot:
        await go_to(pilot, "hessian")
        await pilot.press("2")
    again = ReadtrackApp(Library.open(home, papers_yaml))
    async with again.run_test() as pilot:
        await go_to(pilot, "hessian")
        assert again.library.state("hessian") == "reading"
        assert any("◐ Hessian" in line.content.plain for line in again.main.checklist.lines)


async def test_tags_are_edited_as_words(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await go_to(pilot, "adam")
        await pilot.press("t")
        await pilot.pause()
        app.screen.query_one(Input).value = "#gpu, Optimiser,"
        await pilot.press("enter")
        assert app.library.tags("adam") == {"gpu", "optimiser"}
        assert status(app) == "adam: gpu, optimiser  u undoes"
        await pilot.press("u")
        assert app.library.tags("adam") == set()
        assert status(app) == "adam: tags gpu, optimiser removed."
        await pilot.press("U")
        assert status(app) == "adam: tags gpu, optimiser restored."
        await pilot.press("t")
        await pilot.pause()
        assert app.screen.query_one(Input).value == "gpu optimiser "  # with a space for the next tag
        app.screen.query_one(Input).value = "gpu"
        await pilot.press("enter")
        assert app.library.tags("adam") == {"gpu"}
        await pilot.press("t", "t", "escape")
        assert app.library.tags("adam") == {"gpu"}


async def test_an_impossible_tag_is_explained_where_it_was_typed(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test() as pilot:
        await go_to(pilot, "adam")
        await pilot.press("t")
        await pilot.pause()
        app.screen.query_one(Input).value = "a [/]"
        await pilot.press("enter")
        await pilot.pause()
        assert app.screen.query_one(Input).value == "a [/]"
        assert "a tag is a word of letters, digits" in screen_text(app)
        assert not app._notifications
        await pilot.press(*["backspace"] * 3, "b", "enter")
        await pilot.pause()
        assert len(app.screen_stack) == 1
        assert app.library.tags("adam") == {"a", "b"}


async def test_stars_are_one_key_and_nought_takes_them_away(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await go_to(pilot, "adam")
        await pilot.press("*", "4")
        assert app.library.rating("adam") == 4
        assert status(app) == "adam: ★★★★☆  u undoes"  # the page may be scrolled past its stars
        await pilot.press("*")
        await pilot.pause()
        await pilot.press("escape")
        assert app.library.rating("adam") == 4
        await pilot.press("*")
        await pilot.pause()
        await pilot.press("0")
        assert app.library.rating("adam") is None


@pytest.mark.parametrize("leave", ["escape", "ctrl+s", "ctrl+q", "ctrl+c"])
async def test_a_note_is_never_lost(app: ReadtrackApp, home: Home, leave: str) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await go_to(pilot, "adam")
        await pilot.press("n")
        await pilot.pause()
        app.screen.query_one(TextArea).insert("# Adam\n\nbias correction")
        await pilot.press(leave)
        await pilot.pause()
        assert app.is_running
        assert (home.notes / "adam.md").read_text(encoding="utf-8") == "# Adam\n\nbias correction"
        assert any("bias correction" in line.content.plain for line in app.main.paper.lines)


async def test_additions_of_another_program_to_an_open_note_are_kept(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        app.library.save_note("adam", "# Adam\n")
        await go_to(pilot, "adam")
        await pilot.press("n")
        await pilot.pause()
        app.screen.query_one(TextArea).insert("mine")
        Library.open(home).add_to_note("adam", "theirs")
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert (home.notes / "adam.md").read_text(encoding="utf-8") == "# Adam\nmine\n\ntheirs\n"


async def test_where_the_note_cannot_be_written_the_text_is_kept(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(subject: str, change: object) -> None:
        raise ReadtrackError("the disk is full")

    copied: list[str] = []
    monkeypatch.setattr(app.library, "change_note", full)
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test() as pilot:
        await go_to(pilot, "adam")
        await pilot.press("n")
        await pilot.pause()
        app.screen.query_one(TextArea).insert("precious")
        await pilot.press("escape")
        await pilot.pause()
        assert copied == ["precious"]
        assert next(iter(app._notifications)).message.startswith("Could not save the note.")


async def test_links_go_to_the_clipboard_without_a_desktop(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        copied: list[str] = []
        app.copy_to_clipboard = copied.append  # type: ignore[method-assign]
        await go_to(pilot, "adam")
        await pilot.press("o", "p", "y")
        assert copied == [
            "https://arxiv.org/abs/1412.6980",
            "https://arxiv.org/pdf/1412.6980",
            "https://arxiv.org/abs/1412.6980",
        ]


@pytest.mark.skipif(os.name != "posix", reason="xdg-open is the POSIX desktop's")
async def test_a_desktop_opens_links_without_touching_the_terminal(
    app: ReadtrackApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    opener = tmp_path / "bin" / ("open" if os.uname().sysname == "Darwin" else "xdg-open")
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\necho noise; echo noise >&2\necho "$1" > {opened}\n', encoding="utf-8")
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", str(opener.parent), prepend=":")
    monkeypatch.setenv("DISPLAY", ":99")
    async with app.run_test() as pilot:
        await go_to(pilot, "adam")
        await pilot.press("o")
        for _ in range(100):
            if opened.exists() and opened.read_text(encoding="utf-8"):
                break
            await pilot.pause(0.05)
    assert opened.read_text(encoding="utf-8").strip() == "https://arxiv.org/abs/1412.6980"


async def test_a_link_in_the_readers_own_words_is_opened(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        copied: list[str] = []
        app.copy_to_clipboard = copied.append  # type: ignore[method-assign]
        await pilot.pause()
        await pilot.press("o", "G", "o")
        assert copied == ["https://example.org/blog", "https://example.org/a-page"]


async def test_text_is_selected_with_the_mouse_and_copied(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("hessian")
        await pilot.pause()
        lines = [line.content.plain for line in app.main.paper.lines]
        row = next(index for index, line in enumerate(lines) if "Products without the matrix." in line)
        at = lines[row].index("without")
        await pilot.mouse_down(app.main.paper, offset=(at, row))
        await pilot.hover(app.main.paper, offset=(at + len("without"), row))
        await pilot.mouse_up(app.main.paper, offset=(at + len("without"), row))
        await pilot.pause()
        await pilot.press("y")
        assert copied == ["without"]
        await pilot.press("y")
        assert copied[1].startswith("https://doi.org/")
        home = app.library.home
        home.ensure(home.metadata)
        (home.metadata / "hessian.json").write_text('{"abstract": "One\\n  two."}')
        await pilot.press("Y")
        assert copied[2] == "One two."
