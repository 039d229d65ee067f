"""Pages: the first frame, and long pages that are made while they are read."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from driving import until
from rich.console import RenderableType
from textual._compositor import LayoutUpdate
from textual.app import App, ComposeResult
from textual.content import Content
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip

from readtrack.tui.app import ReadtrackApp
from readtrack.tui.theme import THEMES
from readtrack.tui.widgets import contents, line_view
from readtrack.tui.widgets.line_view import Line, Lines, LineView, gradual, text

BLOCKS, ROWS = 400, 5
PATIENCE = line_view._PATIENCE
SCREEN = Region(0, 0, 80, 24)


def test_plain_text_is_wrapped_as_textual_wraps_it() -> None:
    rng = random.Random(1)
    pieces = ["a", "bb", "word", "longer-word", " ", " ", "   ", ".", "\n", "\t", "é", "語", "x" * 12]
    for _ in range(500):
        words, room = "".join(rng.choices(pieces, k=rng.randrange(60))), rng.randrange(8, 60)
        style, indent = rng.choice(["", "bold $heading"]), rng.randrange(4)
        found = contents.wrapped(words, room, style, indent)
        wanted = [
            line
            for paragraph in words.split("\n")
            for line in contents.wrapped(Content.styled(paragraph, style), room, "", indent)
        ]
        assert [line.plain for line in found] == [line.plain for line in wanted]
        assert [line.spans for line in found] == [line.spans for line in wanted]
        assert [line.cell_length for line in found] == [line.cell_length for line in wanted]


def test_parts_are_joined_as_textual_joins_them() -> None:
    parts = [text("a ", "bold"), "語 b", text(""), text("c", "$muted").stylize("italic"), Content("d")]
    found, wanted = contents.joined(parts), Content("").join(parts)
    assert found.is_same(wanted)
    assert found.cell_length == wanted.cell_length


def test_consecutive_numbers_are_one_run() -> None:
    assert list(contents.consecutive([])) == []
    assert list(contents.consecutive([3])) == [(3, 3)]
    assert list(contents.consecutive([0, 1, 2, 5, 7, 8])) == [(0, 2), (5, 5), (7, 8)]


class Pages(App[None]):
    """A page of 2,000 lines, every fifth with a target. `made` counts the requested blocks.

    takes  seconds per block
    """

    def __init__(self, fails_at: int = BLOCKS, takes: float = 0.0) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.takes = takes
        self.made = 0
        self.page = LineView(self.build)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return THEMES["ink"].variables

    def compose(self) -> ComposeResult:
        yield self.page

    def build(self, width: int) -> Lines:
        return self.blocks()

    @gradual
    def blocks(self) -> Iterator[Lines]:
        for number in range(BLOCKS):
            if number == self.fails_at:
                raise ValueError("a table of dreams")
            time.sleep(self.takes)
            self.made += 1
            yield [Line(text(f"{number}.{row}"), number if row == 0 else None) for row in range(ROWS)]


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nothing between two keys."""
    monkeypatch.setattr(LineView, "_go_on", lambda page: None)


async def test_the_first_frame_has_the_list_and_the_details(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[str] = []
    display = ReadtrackApp._display

    def displayed(self: ReadtrackApp, screen: Screen[object], frame: RenderableType | None) -> None:
        if isinstance(frame, LayoutUpdate):
            frames.append("\n".join("".join(one.text for one in strips) for strips in frame.strips))
            frame = None  # its strips are used up
        display(self, screen, frame)

    monkeypatch.setattr(ReadtrackApp, "_display", displayed)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        entry = app.main.entry
    assert entry is not None
    assert entry.row is not None
    assert app.library.catalog.sections[0].title in frames[0]
    for name in entry.row.papers:  # the details list them with title and year
        paper = app.library.catalog.papers[name]
        assert f"{name}  {paper.title} · {paper.year}" in frames[0]


@pytest.mark.usefixtures("asleep")
async def test_a_long_page_is_built_only_to_the_visible_end() -> None:
    app = Pages()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert app.made == 5
        await pilot.press("pagedown")
        assert (app.page.scroll_offset.y, app.made < 20) == (23, True)
        for _ in range(40):
            await pilot.press("j")
        assert app.page.scroll_offset.y <= (app.page.cursor or 0) < app.page.scroll_offset.y + 24
        assert 10 < app.made < 60
        await pilot.press("G")
        assert (app.page.target, app.made, len(app.page.lines)) == (BLOCKS - 1, BLOCKS, BLOCKS * ROWS)


@pytest.mark.usefixtures("asleep")
async def test_a_long_page_is_made_up_to_the_line_that_is_gone_to() -> None:
    app = Pages()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert app.page.go_to(300)
        assert app.page.lines[app.page.cursor or 0].content.plain == "300.0"
        app.page.rebuild()
        assert (app.page.target, app.made) == (300, 2 * BLOCKS)
        await pilot.resize_terminal(60, 24)
        await pilot.pause()
        assert (app.page.target, app.made < 3 * BLOCKS) == (300, True)
        assert app.page.scroll_offset.y <= 1500 < app.page.scroll_offset.y + 24
        app.page.rebuild(top=True)
        assert (app.page.target, len(app.page.lines)) == (0, 25)


async def test_the_rest_of_a_long_page_follows_by_itself() -> None:
    app = Pages()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.made == BLOCKS, "all blocks")
        assert app.page.max_scroll_y == BLOCKS * ROWS - 24


async def test_a_slow_page_is_drawn_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_view, "_PATIENCE", PATIENCE)
    app = Pages(takes=0.02)
    began: list[int] = []
    render = LineView.render_lines

    def rendered(page: LineView, crop: Region) -> list[Strip]:
        lines = render(page, crop)
        began.append(app.made)
        return lines

    monkeypatch.setattr(LineView, "render_lines", rendered)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.made >= 5, "all that is in view")
        assert began[0] < 5
        await until(
            pilot, lambda: "4.3" in "".join(s.text for s in app.page.render_lines(SCREEN)), "its lines"
        )


@pytest.mark.parametrize("fails_at", [0, 2, 100])
async def test_a_long_page_shows_an_error_where_it_fails(fails_at: int) -> None:
    app = Pages(fails_at)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.page.whole, "the page")
        lines = [line.content.plain for line in app.page.lines]
        assert lines[: fails_at * ROWS][-1:] == ([f"{fails_at - 1}.4"] if fails_at else [])
        assert " Why: ValueError: a table of dreams." in lines[fails_at * ROWS :]


def test_the_length_of_a_page_builds_all_of_it() -> None:
    app = Pages()
    page = app.blocks()
    assert (len(page), page[-1].content.plain, len(page[1:3])) == (BLOCKS * ROWS, "399.4", 2)
    assert (len(list(app.blocks())), app.made) == (BLOCKS * ROWS, 2 * BLOCKS)
