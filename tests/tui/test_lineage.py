"""Lineage, reading statistics, copying, and a filter that searches notes, for the reader's own list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from readtrack.tui.app import ReadtrackApp
from readtrack.tui.palette import Papers
from readtrack.tui.screens.paged import Paged

Text = Callable[[ReadtrackApp], str]


async def test_lineage_leads_to_a_paper(app: ReadtrackApp, screen_text: Text) -> None:
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        await pilot.press("b", "b", "b")
        await pilot.pause()
        assert isinstance(app.screen, Paged)
        shown = screen_text(app)
        assert "Builds on" in shown
        assert "└ ● sgd 1951" in shown
        await pilot.press("enter")
        await pilot.pause()
        assert app.entry is not None
        assert app.entry.subject == "sgd"


def listed(app: ReadtrackApp) -> list[str]:
    """The filter's matches on the list."""
    return [one for one in app.main.checklist.found or () if one in app.library.listed]


async def test_history_shows_a_year_and_the_next_papers(app: ReadtrackApp, screen_text: Text) -> None:
    async with app.run_test(size=(100, 50)) as pilot:
        await pilot.pause()
        app.library.mark("adam", "read")
        await pilot.press("D")
        await pilot.pause()
        shown = screen_text(app)
        assert "Mon" in shown
        assert "1 change in the last year" in shown
        assert "Next" in shown
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, Paged)


@pytest.mark.parametrize(("key", "copied"), [("B", "@misc{kingma2014adam,"), ("X", "1412.6980")])
async def test_a_key_copies(app: ReadtrackApp, key: str, copied: str) -> None:
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        await pilot.press(key)
        await pilot.pause()
        assert app.clipboard.startswith(copied)


async def test_the_filter_reads_notes_and_takes_the_whole_language(app: ReadtrackApp) -> None:
    app.library.save_note("flash", "a remark about xylophones\n")
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await app.workers.wait_for_complete()
        await pilot.press("/", *"xyloph")
        await pilot.pause()
        assert app.main.checklist.found is not None
        assert list(app.main.checklist.found) == ["flash"]
        assert "xylophones" in app.main.checklist.found["flash"].note
        app.main.filter.value = "year:..2014 not author:kingma"
        await pilot.pause()
        papers = app.library.catalog.papers
        found = set(app.main.checklist.found or ())
        kingmas = {"adam", "vae"}
        assert found == {id_ for id_, paper in papers.items() if paper.year <= 2014} - kingmas


async def test_a_possibly_misspelt_word_is_reported(app: ReadtrackApp, screen_text: Text) -> None:
    async with app.run_test(size=(160, 30)) as pilot:
        await pilot.pause()
        await pilot.press("/", *"hessain")
        await pilot.pause()
        assert next(iter(app.main.checklist.found or ())) == "hessian"
        shown = " ".join(screen_text(app).replace("▕", " ").split())
        assert "'hessain' may be misspelt: results for 'hessian' are included." in shown


async def test_a_note_is_found_as_soon_as_it_is_written(app: ReadtrackApp) -> None:
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await app.workers.wait_for_complete()
        app.main.checklist.go_to_subject("sgd")
        await pilot.press("n")
        await pilot.pause()
        await pilot.press(*"marimbas", "escape")
        await pilot.pause()
        assert app.library.note("sgd") == "marimbas"
        await pilot.press("/", *"marimba")
        await pilot.pause()
        assert list(app.main.checklist.found or ()) == ["sgd"]


async def test_after_ctrl_r_filter_and_palette_search_the_new_list(
    app: ReadtrackApp, papers_yaml: Path
) -> None:
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await app.workers.wait_for_complete()
        await pilot.press("/", *"products", "enter")
        await pilot.pause()
        assert listed(app) == ["hessian"]
        text = papers_yaml.read_text(encoding="utf-8")
        changed = text.replace("Products without the matrix.", "A trick.").replace(
            "Tiles.", "Inner products."
        )
        papers_yaml.write_text(changed, encoding="utf-8")
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert listed(app) == ["flash"]
        found = [hit.text async for hit in Papers(app.screen).search("products")]
        assert "flash" in found
        assert "hessian" not in found


async def test_the_app_starts_where_the_index_cannot_be_written(app: ReadtrackApp) -> None:
    app.library.home.ensure(app.library.home.cache)
    (app.library.home.cache / "search.sqlite").mkdir()
    with patch.object(app, "fail") as complain:
        async with app.run_test(size=(100, 30)) as pilot:
            await pilot.pause()
            await app.workers.wait_for_complete()
            await pilot.press("/", *"adam")
            await pilot.pause()
            assert next(iter(app.main.checklist.found or ())) == "adam"
            app.main.filter.value = "adam or sgd"
            await pilot.pause()
            assert listed(app) == ["sgd", "adam"]
    assert not complain.called
