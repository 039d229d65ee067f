"""Importing a list in the app: name or paste it, check each row, change matches, and write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from driving import message, status, until
from textual import events

from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.catalog import Row
from readtrack.tui import kept
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens.choose_paper import ChoosePaper
from readtrack.tui.screens.import_list import ImportScreen, ListDialog, completions

Screen = Callable[[ReadtrackApp], str]

LIST = (
    "# Mine\n\n## S\n- [x] BERT\n- [ ] GQA and my fish\n- [/] [T5](t5.pdf)\n- [ ] unknown\n- [ ] not this\n"
)


@pytest.fixture
def newcomer(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadtrackApp:
    """The app of a reader who has only kept the shipped list, in a folder with another list."""
    monkeypatch.chdir(tmp_path)
    kept.keep_chosen(home)
    (tmp_path / "mine.md").write_text(LIST, encoding="utf-8")
    (tmp_path / "t5.pdf").write_bytes(b"%PDF-1.4\n" + b" " * 2000 + b"startxref\n0\n%%EOF\n")
    return ReadtrackApp(Library.open(home))


def rows(app: ReadtrackApp) -> dict[str, tuple[str, ...]]:
    return {item.text: item.papers for _, item in app.library.catalog.walk() if isinstance(item, Row)}


async def open_import(app: ReadtrackApp, pilot: object, path: str) -> ImportScreen:
    await pilot.pause()  # type: ignore[attr-defined]
    await pilot.press("I", "i")  # type: ignore[attr-defined]
    await until(pilot, lambda: isinstance(app.screen, ListDialog), "the dialog")  # type: ignore[arg-type]
    await pilot.press(*path, "tab", "enter")  # type: ignore[attr-defined]
    await until(pilot, lambda: isinstance(app.screen, ImportScreen), "the rows")  # type: ignore[arg-type]
    await pilot.pause()  # type: ignore[attr-defined]
    assert isinstance(app.screen, ImportScreen)
    return app.screen


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_each_row_is_shown_and_changed_before_anything_is_written(
    newcomer: ReadtrackApp, home: Home, screen_text: Screen, size: tuple[int, int]
) -> None:
    async with newcomer.run_test(size=size) as pilot:
        screen = await open_import(newcomer, pilot, "mi")
        shown = screen_text(newcomer)
        assert "bert" in shown
        assert "maybe gqa" in shown
        assert "p attaches 1 PDF" in shown
        assert screen.row is not None
        assert screen.row.text == "GQA and my fish"  # the first unsure row
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(newcomer.screen, ChoosePaper)
        await pilot.press("enter")  # the candidate is first
        await pilot.pause()
        assert screen.papers_of(screen.row) == ("gqa",)  # the cursor stays, because no other row is unsure
        await pilot.press("G", "x", "p")
        await pilot.pause()
        assert "left out" in screen_text(newcomer)
        assert str(Path("t5.pdf").absolute()) in message(newcomer)
        assert not home.papers_yaml.exists()
        await pilot.press("w")
        await until(pilot, lambda: home.papers_yaml.exists() and "Imported" in status(newcomer), "the list")
        assert rows(newcomer) == {
            "BERT": ("bert",),
            "GQA and my fish": ("gqa",),
            "[T5](t5.pdf)": ("t5",),
            "unknown": (),
        }
        states = [newcomer.library.state(one) for one in ("bert", "gqa", "t5")]
        assert states == ["read", "todo", "reading"]
        assert newcomer.library.pdf("t5") is not None


async def test_after_a_choice_the_cursor_goes_to_the_next_row_that_is_not_sure(
    newcomer: ReadtrackApp, tmp_path: Path
) -> None:
    (tmp_path / "mine.md").write_text("- GQA and my fish\n- BERT\n- GQA or my dog\n", encoding="utf-8")
    async with newcomer.run_test(size=(80, 24)) as pilot:
        screen = await open_import(newcomer, pilot, "mi")
        for expected in ("GQA or my dog", "GQA or my dog"):  # after the last comes the first
            await pilot.press("enter")
            await pilot.pause()
            await pilot.press("enter")
            await pilot.pause()
            assert screen.row is not None
            assert screen.row.text == expected


async def test_a_row_stays_a_row_and_escape_writes_nothing(
    newcomer: ReadtrackApp, home: Home, screen_text: Screen
) -> None:
    async with newcomer.run_test(size=(100, 30)) as pilot:
        screen = await open_import(newcomer, pilot, "mine.md")
        await pilot.press("g", "n")
        assert screen.row is not None
        assert screen.papers_of(screen.row) == ()
        await pilot.press("n")
        assert screen.papers_of(screen.row) == ("bert",)
        await pilot.press("escape")
        await pilot.pause()
        assert "Nothing was imported" in status(newcomer)
        assert not home.papers_yaml.exists()


async def test_a_pasted_list_is_taken(newcomer: ReadtrackApp, home: Home) -> None:
    async with newcomer.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(newcomer.screen, ListDialog), "the dialog")
        await pilot.pause()
        newcomer.screen.post_message(events.Paste("- [x] BERT\r- [ ] GPT-2\r"))
        await until(pilot, lambda: isinstance(newcomer.screen, ImportScreen), "the rows")
        await pilot.press("w")
        await until(pilot, lambda: "Imported 2 rows" in status(newcomer), "the list")
        assert rows(newcomer) == {"BERT": ("bert",), "GPT-2": ("gpt2",)}
        await pilot.press("u")
        await until(pilot, lambda: not home.papers_yaml.exists(), "the list that was there before")
        assert "imported" in status(newcomer)
        assert newcomer.library.shows_shipped_list
        await pilot.press("U")
        await until(pilot, lambda: len(rows(newcomer)) == 2, "the import again")


async def test_the_rows_that_were_imported_are_counted_and_the_unsure_ones_named(
    newcomer: ReadtrackApp, tmp_path: Path
) -> None:
    entry = "@misc{%s, title={%s}, year={%d}}\n"
    papers = (("a", "BERT", 2018), ("b", "BERT", 2018), ("c", "GQA and my fish", 2023))
    (tmp_path / "mine.bib").write_text("".join(entry % one for one in papers), encoding="utf-8")
    async with newcomer.run_test(size=(100, 30)) as pilot:
        await open_import(newcomer, pilot, "mine.b")
        await pilot.press("w")
        await until(pilot, lambda: "Imported" in status(newcomer), "the list")
        assert "Imported 2 rows of mine.bib, 1 ambiguous" in status(newcomer)
        assert [*rows(newcomer)] == ["BERT (2018)", "GQA and my fish (2023)"]


async def test_a_failed_import_is_reported(newcomer: ReadtrackApp, screen_text: Screen) -> None:
    async with newcomer.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(newcomer.screen, ListDialog), "the dialog")
        await pilot.press(*"gone.md", "enter")
        await pilot.pause()
        assert "gone.md is not there" in screen_text(newcomer)
        Path("empty.md").write_text("no rows\n")
        await pilot.press(*["backspace"] * 7, *"empty.md", "enter")
        await until(pilot, lambda: newcomer._notifications, "the error")
        assert "has no row" in message(newcomer)


async def test_a_key_links_a_row_and_unlinks_it(newcomer: ReadtrackApp) -> None:
    async with newcomer.run_test(size=(100, 30)) as pilot:
        await open_import(newcomer, pilot, "mine.md")
        await pilot.press("w")
        await until(pilot, lambda: "Imported" in status(newcomer), "the list")
        row = next(
            item for _, item in newcomer.library.catalog.walk() if getattr(item, "text", "") == "unknown"
        )
        assert isinstance(row, Row)
        newcomer.main.checklist.go_to_subject(row.subject)
        await pilot.pause()
        assert "K link to a paper" in str(newcomer.main.query_one("#hints").render())
        newcomer.main.checklist.go_to_subject(row.subject)
        await pilot.press("3", "K", *"vision-tr", "enter")
        await pilot.pause()
        assert rows(newcomer)["unknown"] == ("vit",)
        assert newcomer.library.state("vit") == "read"
        assert newcomer.entry is not None
        assert newcomer.entry.text == "unknown"
        assert "unknown is now linked to vit" in status(newcomer)
        await pilot.press("K")
        await pilot.pause()
        assert isinstance(newcomer.screen, ChoosePaper)
        await pilot.press("down", "enter")
        await pilot.pause()
        assert rows(newcomer)["unknown"] == ()


async def test_undo_removes_a_link_but_not_earlier_states(newcomer: ReadtrackApp) -> None:
    async with newcomer.run_test(size=(100, 30)) as pilot:
        await open_import(newcomer, pilot, "mine.md")
        await pilot.press("w")
        await until(pilot, lambda: "Imported" in status(newcomer), "the list")
        library = newcomer.library
        newcomer.main.checklist.go_to_subject("row:unknown")
        await pilot.pause()
        await pilot.press("3", "K", *"vision-tr", "enter")
        await pilot.pause()
        assert rows(newcomer)["unknown"] == ("vit",)
        await pilot.press("u")
        await pilot.pause()
        assert rows(newcomer)["unknown"] == ()
        assert (library.state("row:unknown"), library.state("vit")) == ("read", "todo")
        assert "Undone: unknown now linked to vit." in status(newcomer)
        await pilot.press("U")
        await pilot.pause()
        assert rows(newcomer)["unknown"] == ("vit",)
        assert (library.state("row:unknown"), library.state("vit")) == ("todo", "read")
        assert "Redone: unknown now linked to vit." in status(newcomer)
        await pilot.press("u")
        await pilot.pause()
        assert rows(newcomer)["unknown"] == ()
        await pilot.press("u")
        await pilot.pause()
        assert library.state("row:unknown") == "todo"
        assert library.state("t5") == "reading"  # the older state, from the import


async def test_a_row_becomes_a_new_paper_and_is_removed(newcomer: ReadtrackApp, screen_text: Screen) -> None:
    async with newcomer.run_test(size=(80, 24)) as pilot:
        await open_import(newcomer, pilot, "mine.md")
        await pilot.press("w")
        await until(pilot, lambda: "Imported" in status(newcomer), "the list")
        newcomer.main.checklist.go_to_subject("row:unknown")
        await pilot.pause()
        await pilot.press("K")
        await pilot.pause()
        assert "a new paper  unknown" in screen_text(newcomer)
        await pilot.press(*"2305.14314", "enter")
        await pilot.pause()
        assert rows(newcomer)["unknown"] == ("arxiv_2305_14314",)
        await pilot.press("d", "d")
        await pilot.pause()
        assert "Remove unknown from your list?" in screen_text(newcomer)
        await pilot.press("y")
        await pilot.pause()
        assert "unknown" not in rows(newcomer)
        assert "unknown is removed from your list" in status(newcomer)
        await pilot.press("g", "g", "u")
        await pilot.pause()
        assert newcomer.entry is not None
        assert newcomer.entry.text == "unknown"  # the reader continues at the last position
        await pilot.press("U")
        await pilot.pause()
        assert "unknown" not in rows(newcomer)
        for papers in (("arxiv_2305_14314",), ()):
            await pilot.press("u")
            await pilot.pause()
            assert rows(newcomer)["unknown"] == papers
        await pilot.press("U", "U")
        await pilot.pause()
        assert "unknown" not in rows(newcomer)


async def test_enter_accepts_no_guess_and_a_guess_is_marked(
    newcomer: ReadtrackApp, tmp_path: Path, screen_text: Screen
) -> None:
    (tmp_path / "mine.md").write_text("- fish\n- He et al., deep residuals\n", encoding="utf-8")
    async with newcomer.run_test(size=(80, 24)) as pilot:
        screen = await open_import(newcomer, pilot, "mi")
        for keys, papers in (("g", ()), ("j", ()), ("j", ("resnet",))):
            await pilot.press(keys, "enter")
            await pilot.pause()
            assert "no paper: keep as a plain row" in screen_text(newcomer)
            assert ("resnet  a guess: deep, residuals" in screen_text(newcomer)) == (keys == "j")
            await pilot.press("j", *["down"] * len(papers), "enter")  # a single letter finds nothing
            await pilot.pause()
            assert screen.row is not None
            assert screen.papers_of(screen.row) == papers


async def test_help_explains_the_signs_and_keys_of_the_table(
    newcomer: ReadtrackApp, home: Home, tmp_path: Path, screen_text: Screen
) -> None:
    async with newcomer.run_test(size=(80, 40)) as pilot:
        await open_import(newcomer, pilot, "mi")
        await pilot.press("question_mark")
        await pilot.pause()
        shown = screen_text(newcomer)
        assert "It is already on your list." in shown
        assert "In an import: leave the row out" in shown
        await pilot.press("question_mark", "x")
        await pilot.pause()
        assert "1 left out" in screen_text(newcomer)


def test_paths_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    for name in ("a.md", "b.bib", "c.pdf", ".hidden.md", "notes/deep.md"):
        (tmp_path / name).write_text("")
    assert completions("") == ["a.md", "b.bib", "notes/"]
    assert completions("no") == ["notes/"]
    assert completions(f"{tmp_path}/notes/") == [f"{tmp_path}/notes/deep.md"]
    assert completions(".h") == [".hidden.md"]
    assert completions("gone/") == []
