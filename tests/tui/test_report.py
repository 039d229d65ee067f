"""W writes the home's report in a child process and opens it, while the app continues."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from driving import message, status, until

from readtrack.home import Home
from readtrack.tui.app import ReadtrackApp


@pytest.fixture(autouse=True)
def _small_list(home: Home, papers_yaml: Path) -> None:
    """Put a small list into the home, where the child finds it."""
    home.ensure()
    home.papers_yaml.write_bytes(papers_yaml.read_bytes())


async def test_the_report_is_written_and_opened_while_keys_work(
    app: ReadtrackApp, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, page = tmp_path / "opened", home.root / "report" / "index.html"
    (tmp_path / "xdg-open").write_text(
        f'#!/bin/sh\nprintf "%s" "$1" > {opened}.part; mv {opened}.part {opened}\n'
    )
    (tmp_path / "xdg-open").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DISPLAY", ":0")
    async with app.run_test(size=(160, 30)) as pilot:
        await pilot.press("W")
        assert "Writing the report" in status(app)
        await pilot.press("W")
        assert "still being written" in status(app)
        assert app.main.checklist.go_to_subject("flash")
        await pilot.press("3")
        assert app.library.state("flash") == "read"
        await until(pilot, opened.exists, "the browser")
        await until(pilot, lambda: str(page) in status(app), "the place of the report")
    assert opened.read_text() == str(page)
    assert "My list" in page.read_text()
    assert "[red]fast[/red]" in page.read_text()


async def test_without_a_desktop_the_place_is_on_the_clipboard(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test(size=(160, 30)) as pilot:
        await pilot.press("W")
        await until(pilot, lambda: "its path was copied" in status(app), "the end of the report")
        assert app.clipboard == str(home.root / "report" / "index.html")


async def test_an_error_is_shown_and_the_key_works_again(app: ReadtrackApp, home: Home) -> None:
    thesis = home.root / "report" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.touch()
    async with app.run_test(size=(160, 30)) as pilot:
        await pilot.press("W")
        await until(pilot, lambda: app._notifications, "the message")
        assert "the folder contains something that is not a report" in message(app)
        assert "readtrack report --output FOLDER" in message(app)
        thesis.unlink()
        await pilot.press("W")
        await until(pilot, lambda: "Report written" in status(app), "the report")


async def test_leaving_the_app_ends_the_child(app: ReadtrackApp) -> None:
    async with app.run_test(size=(160, 30)) as pilot:
        await pilot.press("W")
        child = app._report._child
        assert child is not None
    async with asyncio.timeout(10):
        while child.poll() is None:
            await asyncio.sleep(0.02)
    assert child.returncode == -9
