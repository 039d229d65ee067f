"""Colours have contrast, marks differ in shape, and the ASCII mode uses only ASCII."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from textual.color import Color
from textual.theme import Theme

from readtrack.home import Home
from readtrack.library import Library
from readtrack.present.marks import OUTCOMES, PENDING, RUNNABLE, STATES, VERDICTS
from readtrack.present.plain_ascii import one_column
from readtrack.runs.evidence import EXACT, WORST_FIRST
from readtrack.signs import FOLDED
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.theme import (
    ARMS,
    THEMES,
    starting_theme,
    wants_ascii,
)

WORDS = ("heading", "muted", "link", "todo", "reading", "read", "implemented", "skipped", "good", "bad")


def contrast(one: str, other: str) -> float:
    """The contrast by WCAG 2.1, section 1.4.3."""

    def luminance(name: str) -> float:
        channels = [part / 255 for part in Color.parse(name).rgb]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", THEMES.values(), ids=lambda theme: theme.name)
def test_words_can_be_read_on_every_ground(theme: Theme) -> None:
    assert theme.background and theme.surface and theme.foreground  # noqa: PT018
    grounds = [theme.background, theme.surface, theme.variables["cursor"], theme.variables["cursor-blurred"]]
    for name in (*WORDS, *(f"arm-{index}" for index in range(ARMS))):
        for ground in grounds:
            wanted = 4.5 if ground == theme.background and not name.startswith("arm-") else 3.0
            assert contrast(theme.variables[name], ground) >= wanted, (theme.name, name, ground)
    for ground in grounds:
        assert contrast(theme.foreground, ground) >= 7


def test_both_themes_name_the_same_colours() -> None:
    assert len({frozenset(theme.variables) for theme in THEMES.values()}) == 1


def test_marks_differ_in_shape_in_unicode_and_in_ascii() -> None:
    same = {"missed": "not reproduced", "reproduced": "held"}  # over one seed, and over several
    verdicts = {word: mark.sign for word, mark in VERDICTS.items() if word not in same}
    for marks in (STATES, verdicts):
        assert len(set(marks.values())) == len(marks)
        assert len({one_column(mark) for mark in marks.values()}) == len(marks)
    assert all(VERDICTS[one] == VERDICTS[other] for one, other in same.items())


def test_the_marks_of_runnable_and_folded_rows_differ() -> None:
    assert RUNNABLE != FOLDED
    assert one_column(RUNNABLE) != one_column(FOLDED)


def test_every_word_of_a_verdict_has_its_mark() -> None:
    from readtrack.claims import Held
    from readtrack.verdicts import Verdict

    assert VERDICTS.keys() == {*get_args(Held), *get_args(Verdict), EXACT, PENDING}
    assert tuple(VERDICTS) == (*WORST_FIRST, PENDING)


def test_marks_are_one_column_wide() -> None:
    from rich.cells import cell_len

    marks = [*STATES.values(), *(mark.sign for mark in VERDICTS.values()), *OUTCOMES.values()]
    assert {cell_len(mark) for mark in marks} == {1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("○ ◐ ● ◆ ⊘", ". ~ x # -"),
        ("⠉⣀⣿⠀", "'.: "),
        ("1.2 µs ≥ 3×", "1.2 us > 3x"),
        ("日本", "????"),
        ("plain", "plain"),
    ],
)
def test_ascii_keeps_every_column(text: str, expected: str) -> None:
    assert one_column(text) == expected


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_no_sign_leaks_into_an_ascii_terminal(
    home: Home,
    papers_yaml: str,
    recorded: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    monkeypatch.setenv("READTRACK_ASCII", "1")
    recorded()
    app = ReadtrackApp(Library.open(home, papers_yaml))  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        for keys in (
            ("enter",),
            ("enter",),
            ("]",),
            ("]",),
            ("]",),
            ("]",),
            ("?",),
            ("escape", "R"),
            ("escape", "s"),
        ):
            await pilot.press(*keys)
            await pilot.pause(0.1)
            filters = app.get_line_filters()
            for strip in app.screen._compositor.render_strips():
                shown = "".join(part.text for part in strip.apply_filter(filters[-1], Color.parse("#000000")))
                assert shown.isascii(), shown
                meant = ("? help", "? f1", "is adam?", "? inconclusive")
                assert "?" not in re.sub("|".join(map(re.escape, meant)), "", shown), shown


def test_terminals_that_need_ascii() -> None:
    assert wants_ascii({"READTRACK_ASCII": "1"})
    assert wants_ascii({"TERM": "linux"})
    assert not wants_ascii({"TERM": "linux", "READTRACK_ASCII": "0"})
    assert not wants_ascii({"TERM": "xterm-256color"})


def test_the_theme_to_start_with() -> None:
    true = {"COLORTERM": "truecolor"}
    assert starting_theme(true) == starting_theme({**true, "READTRACK_THEME": "neon"}) == "ink"
    assert starting_theme({**true, "READTRACK_THEME": "paper"}) == "paper"
    assert starting_theme({}) == "ink-256"
    assert starting_theme({"READTRACK_THEME": "paper"}) == "paper-256"


@pytest.mark.parametrize("name", ["ink-256", "paper-256"])
def test_a_terminal_of_256_colours_has_every_colour_of_its_themes(name: str) -> None:
    steps = ("00", "5f", "87", "af", "d7", "ff")
    cube = {f"#{r}{g}{b}" for r in steps for g in steps for b in steps}
    grey = {f"#{level:02x}{level:02x}{level:02x}" for level in range(8, 248, 10)}
    theme = THEMES[name]
    used = {theme.primary, theme.foreground, theme.background, theme.surface, theme.panel}
    assert {*used, *theme.variables.values()} <= cube | grey


async def test_without_colours_the_line_under_the_cursor_is_reversed(
    home: Home, papers_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test(size=(100, 20)) as pilot:
        await pilot.pause()
        at = app.main.checklist.cursor
        assert at is not None
        marked, plain = (app.main.checklist.render_line(y) for y in (at, at + 1))
        assert all(segment.style and segment.style.reverse for segment in marked)
        assert not any(segment.style and segment.style.reverse for segment in plain)


async def test_both_themes_are_one_key_apart(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("T")
        assert app.theme == "paper"
        await pilot.press("T")
        assert app.theme == "ink"
