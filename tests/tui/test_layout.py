"""Whole screens as text at common sizes, hostile titles, and the imports of the process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import until
from textual.widgets._toast import Toast

from readtrack.home import Home
from readtrack.library import Library
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.widgets.line_view import text


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (160, 50)])
async def test_the_first_screen(
    app: ReadtrackApp,
    screen_text: Callable[[ReadtrackApp], str],
    golden: Callable[[str, str], None],
    size: tuple[int, int],
) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        app.library.rate("adam", 4)
        app.library.tag("adam", "optimiser")
        app.library.save_note("adam", "# Read it\n\nBias correction matters.")
        app.main.refresh_all()
        await pilot.pause()
        screens = [screen_text(app)]
        await pilot.press("enter")
        await pilot.pause()
        screens.append(screen_text(app))
        await pilot.press("escape", "{", "{")
        await pilot.pause()
        screens.append(screen_text(app))
        golden(f"first-{size[0]}", ("\n" + "═" * size[0] + "\n").join(screens))


@pytest.mark.parametrize("key", ["R", "*", "t", "n", "?"])
async def test_the_dialogs(
    app: ReadtrackApp,
    screen_text: Callable[[ReadtrackApp], str],
    golden: Callable[[str, str], None],
    key: str,
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("attention")
        await pilot.press(key)
        await pilot.pause()
        names = {"R": "options", "*": "stars", "t": "tags", "n": "note", "?": "help"}
        golden(f"dialog-{names[key]}", screen_text(app))


@pytest.mark.parametrize("key", ["*", "t", "n", "?", "a", "H"])
async def test_a_notification_covers_nothing(app: ReadtrackApp, key: str) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        await pilot.press(key)
        await until(pilot, lambda: app.screen is not app.main, "the screen of the key")
        app.fail("start the editor", "it is not installed " * 4, "set EDITOR to an installed editor.")
        await until(pilot, lambda: app.screen.query("Toast"), "the notification")
        await pilot.pause()
        top = app.screen.query_one("Toast").region.y
        assert top >= 18
        shown = [widget for widget in app.screen.query("Static, Input, LineView") if widget.is_on_screen]
        outside = [one for one in shown if not isinstance(one, Toast) and one.region.bottom > top]
        assert shown
        assert outside == []


async def test_panes_follow_the_width(app: ReadtrackApp) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        panes = (app.main.checklist, app.main.paper)
        for size, seen in (((80, 24), 1), ((100, 30), 2), ((60, 15), 1), ((160, 50), 2)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert sum(pane.is_on_screen for pane in panes) == seen
            assert all(pane.region.right <= size[0] for pane in panes if pane.is_on_screen)


@pytest.mark.parametrize("height", range(10, 26))
async def test_the_title_of_a_page_stays_in_view(
    app: ReadtrackApp, recorded: Callable[..., Path], screen_text: Callable[[ReadtrackApp], str], height: int
) -> None:
    recorded()
    async with app.run_test(size=(80, height)) as pilot:
        await pilot.pause()
        while not app.main.checklist.verdicts:
            await pilot.pause(0.02)
        app.main.checklist.go_to_subject("adam")
        await pilot.press("enter")
        await pilot.pause()
        assert "Adam: A Method for Stochastic Optimization" in screen_text(app)
        assert "Kingma" in screen_text(app)
        await pilot.press("j")
        await pilot.pause()
        assert app.main.paper.cursor is None or app.main.paper._in_view(app.main.paper.cursor)


@pytest.mark.parametrize("pane", ["list", "paper"])
async def test_zoom_gives_a_pane_everything_and_back(app: ReadtrackApp, pane: str) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        widget = app.main.checklist if pane == "list" else app.main.paper
        if pane == "paper":
            await pilot.press("tab")
        narrow = widget.size.width
        await pilot.press("z")
        await pilot.pause()
        assert widget.size.width > 150
        await pilot.press("z")
        await pilot.pause()
        assert widget.size.width == narrow


@pytest.mark.parametrize("size", [(20, 5), (10, 3), (1, 1), (300, 90)])
async def test_no_size_breaks_it(
    app: ReadtrackApp, recorded: Callable[..., Path], size: tuple[int, int]
) -> None:
    recorded()
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press(
            "j", "j", "enter", "enter", "]", "]", "]", "]", "z", "m", "L", "?", "escape", "R", "escape"
        )
        await pilot.resize_terminal(100, 30)
        await pilot.pause()
        assert app.is_running


async def test_markup_and_escape_sequences_are_shown_as_text(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("flash")
        app.library.save_note("flash", "[blink]note[/blink] \x1b[2J\x07 @click")
        app.main.refresh_all()
        await pilot.pause()
        shown = screen_text(app)
        assert "Flash [bold]not bold[/bold]" in shown
        assert "Flash: [red]fast[/red] exact attention" in shown
        assert "Tri [link=https://evil.example]Dao[/link]" in shown
        assert "[blink]note[/blink]  @click" in shown
        assert "\x1b" not in shown
        assert "\x07" not in shown


HOSTILE = [  # control characters never get this far, because the list rejects them
    "[/]",
    "[@click=app.exit]x[/]",
    "\u202egnp.exe",
    "日本語の題名" * 20,
    "e\u0301" * 50,
    "👩‍👩‍👧‍👦 family",
    "",
    "\t\ttabs",
    "a" * 500,
]


@pytest.mark.parametrize("title", HOSTILE)
async def test_hostile_titles(home: Home, tmp_path: Path, title: str) -> None:
    path = tmp_path / "papers.yaml"
    fact = {
        "title": title or "-",
        "authors": [title or "-"],
        "year": 2020,
        "sources": [{"page": "https://example.org/"}],
        "problem": title or "-",
        "idea": title or "-",
        "result": title or "-",
    }
    rows = [{"text": title or "-", "papers": ["x"]}, {"text": f"two {title}", "papers": ["x", "y"]}]
    checklist = [{"section": title or "-", "rows": rows}]
    body = {"title": title or "-", "checklist": checklist, "papers": {"x": fact, "y": fact}}
    path.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    app = ReadtrackApp(Library.open(home, path))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await pilot.press("j", "j", "3", "enter", "escape", "t", "escape", "/", "x", "enter", "?")
        assert app.is_running
        assert app.library.state("x") == "read"


def test_text_is_one_line_of_plain_characters() -> None:
    assert text("a\nb\tc\x1b[31md\u202e").plain == "a b cd"


def test_the_app_imports_no_torch_no_numpy_and_no_plugin(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path]
) -> None:
    recorded()
    Library.open(home, papers_yaml)  # from now on the list comes from the cache, without a YAML parser
    script = f"""
import asyncio, json, sys
from pathlib import Path
from readtrack.library import Library
from readtrack.tui.app import ReadtrackApp

async def main():
    app = ReadtrackApp(Library.open(None, Path({str(papers_yaml)!r})))
    async with app.run_test(size=(160, 50)) as pilot:
        while not app.main.checklist.verdicts:
            await pilot.pause(0.05)
        first = sorted(sys.modules)
        app.main.checklist.go_to_subject("adam")
        await pilot.press("enter", "enter")
        while not app.main.on_run:
            await pilot.pause(0.05)
        await pilot.press("]", "]", "]")
        while "PIL.Image" not in sys.modules or not any(app.main.run_view._pictures.values()):
            await pilot.pause(0.05)
        await pilot.press("escape", "R", "escape", "?")
    print(json.dumps([first, sorted(sys.modules)]))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, last = (set(names) for names in json.loads(done.stdout.splitlines()[-1]))
    heavy = {"torch", "numpy", "sklearn", "scipy", "jaxtyping", "yaml"}
    assert heavy & last == set()
    assert not [
        n for n in last if n.startswith(("readtrack.papers.", "readtrack.data.", "readtrack.bench.m"))
    ]
    assert "PIL.Image" not in first  # pictures are loaded later
