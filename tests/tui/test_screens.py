"""The README's screenshots match the app."""

from __future__ import annotations

import importlib.util
import re
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest
from textual import __version__

from readtrack.library import Library

ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "docs" / "screens"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_screens", SCREENS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.undo()  # the shipped plugins, as the script finds them
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return module


def words(svg: str) -> list[str]:
    """The texts of a screen, line by line, without colours and positions."""
    texts = re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>(.*?)</text>', svg)
    return [f"{y} {unescape(text)}".replace("\xa0", " ") for y, text in texts]


@pytest.mark.parametrize("name", ["first", "memory", "dream"])
async def test_a_screen_of_the_readme_matches_the_app(make: ModuleType, name: str) -> None:
    skip_under_another_textual()
    drawn = await make.draw(name)
    kept = (SCREENS / f"{name}.svg").read_text(encoding="utf-8")
    assert words(drawn) == words(kept), "python docs/screens/make.py draws them anew"


async def test_the_cast_matches_the_app(make: ModuleType) -> None:
    skip_under_another_textual()
    kept = (SCREENS / "readtrack.cast").read_text(encoding="utf-8").splitlines()
    assert list(await make.cast()) == kept, "run python docs/screens/make.py to draw it again"


def skip_under_another_textual() -> None:
    pinned = re.search(r"^textual==(\S+)", (ROOT / "lock" / "run.txt").read_text(), re.MULTILINE)
    if pinned is None or pinned[1] != __version__:
        pytest.skip(f"the screens were drawn by another Textual than {__version__}")


def test_the_readme_shows_them() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (*SCREENS.glob("*.svg"), SCREENS / "readtrack.cast"):
        assert f"docs/screens/{path.name}" in readme


def test_the_list_of_the_screens_can_be_read() -> None:
    from readtrack.home import Home

    assert len(Library.open(Home(SCREENS / "home"), SCREENS / "home" / "papers.yaml").listed) == 7
