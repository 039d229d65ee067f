"""Export from within the app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from driving import status

from readtrack.tui.app import ReadtrackApp


async def test_the_list_is_exported_and_a_file_is_replaced_only_after_a_second_confirmation(
    app: ReadtrackApp,
    screen_text: Callable[[ReadtrackApp], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+e", "enter")
        await pilot.pause()
        assert "Written to" in status(app)
        written = (tmp_path / "reading-list.md").read_text()
        assert "- [" in written
        (tmp_path / "reading-list.md").write_text("mine")
        await pilot.press("ctrl+e", "enter")
        await pilot.pause()
        assert "exists. Press enter again to replace it." in screen_text(app)
        assert (tmp_path / "reading-list.md").read_text() == "mine"
        await pilot.press("enter")
        await pilot.pause()
        assert (tmp_path / "reading-list.md").read_text() == written
        await pilot.press("ctrl+e", *["backspace"] * 3, *".txt", "enter")
        await pilot.pause()
        assert "needs one of these endings" in screen_text(app)
