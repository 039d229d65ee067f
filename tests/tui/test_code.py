"""The screen of a paper's code: its content, its jumps, and the reader's own copy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from readtrack.home import Home
from readtrack.library import Library
from readtrack.plugins.find import find
from readtrack.plugins.source import files, own_copy, places
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens.code import CodeScreen

CODE = {
    "__init__.py": """\
from readtrack.plugin import hookimpl
from .model import Fast

@hookimpl
def implementation():
    return Fast

@hookimpl
def experiment(run):
    run.log("\\x1b[31mred")
""",
    "model.py": "TITLE = '[bold]no markup[/bold]'\n\n\nclass Fast:\n    pass\n",
}


@pytest.fixture
def app(home: Home, papers_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadtrackApp:
    folder = tmp_path / "elsewhere" / "flash"
    folder.mkdir(parents=True)
    for name, text in CODE.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(tmp_path / "elsewhere"))
    return ReadtrackApp(Library.open(home, papers_yaml))


def test_hooks_are_found_without_importing_anything(app: ReadtrackApp) -> None:
    found = files(app.library.runnable()["flash"])
    assert [path.name for path in found] == ["__init__.py", "model.py"]
    where = places(found)
    assert {name: (place.file.name, place.line) for name, place in where.items()} == {
        "implementation": ("model.py", 4),
        "experiment": ("__init__.py", 9),
    }
    found[1].write_text("class Fast(:")  # the other hooks are still found
    assert places(found)["implementation"].file.name == "__init__.py"


def test_the_readers_copy_is_made_once_and_takes_precedence(app: ReadtrackApp, home: Home) -> None:
    main = own_copy(app.library.runnable()["flash"], home)
    assert main == home.plugins / "flash" / "__init__.py"
    mine = find(home)["flash"]
    assert (mine.origin, len(mine.shadows)) == ("user", 1)
    main.write_text("# changed")
    assert own_copy(mine, home).read_text() == "# changed"


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_i_shows_the_code_and_its_keys_jump(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str], size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("flash")
        await pilot.press("i")
        await pilot.pause()
        text = screen_text(app)
        assert "model.py  2 of 2 files   from READTRACK_PLUGIN_PATH" in text
        assert "[bold]no markup[/bold]" in text
        assert ("GPT-2 trains 3 times faster." in text) == (size[0] >= 150)
        footer = "\n".join(text.rstrip().splitlines()[-2:])
        assert all(hint in footer for hint in ("e edit your copy", "u revert", "esc back"))
        await pilot.press("x")
        await pilot.pause()
        assert "1 of 2 files" in screen_text(app)
        assert "def experiment(run):" in screen_text(app)
        await pilot.press("b", "]", "l", "h", "escape", "escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1


async def test_e_edits_a_copy_of_the_line_in_view_which_can_be_compared_and_reverted(
    app: ReadtrackApp,
    home: Home,
    screen_text: Callable[[ReadtrackApp], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = home.plugins / "flash" / "model.py"
    opened: list[list[str]] = []

    def change(command: list[str]) -> bool:
        opened.append(command)
        mine.write_text(mine.read_text().replace("pass", "slow = True"))
        return True

    monkeypatch.setenv("EDITOR", "vim -u NONE")
    monkeypatch.setattr(app.notes, "_run_editor", change)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("flash")
        await pilot.press("i", "e")
        await pilot.pause()
        assert opened == [["vim", "-u", "NONE", "+1", str(mine)]]
        assert "edited: model.py +1 −1" in screen_text(app)
        assert os.path.samefile(app.library.runnable()["flash"].location, mine.parent / "__init__.py")
        await pilot.press("E")
        await pilot.pause()
        assert "-    pass" in screen_text(app)
        assert "+    slow = True" in screen_text(app)
        await pilot.press("escape", "escape", "enter")
        await pilot.pause()
        assert "Running your edited copy (model.py +1 −1)" in screen_text(app)
        await pilot.press("i", "u", "u")
        await pilot.pause()
        assert "from READTRACK_PLUGIN_PATH" in screen_text(app)
        assert "slow" in (home.root / "set-aside" / "plugins" / "flash" / "model.py").read_text()
        await pilot.press("u", "E")
        await pilot.pause()
        assert isinstance(app.screen, CodeScreen)


async def test_an_edit_without_changes_leaves_no_copy(
    app: ReadtrackApp, home: Home, screen_text: Callable[[ReadtrackApp], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "vim")
    monkeypatch.setattr(app.notes, "_run_editor", lambda command: True)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("flash")
        await pilot.press("i", "e")
        await pilot.pause()
        assert not (home.plugins / "flash").exists()
        assert app.library.runnable()["flash"].origin == "path"
        await pilot.press("escape")
        await pilot.pause()
        assert "Nothing was changed, so no copy was kept." in screen_text(app)


async def test_a_paper_without_code_is_reported(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("hessian")
        await pilot.press("i")
        await pilot.pause()
        assert not isinstance(app.screen, CodeScreen)
        assert "has no plugin yet" in list(app._notifications)[-1].message
