"""Colours and marks. No meaning depends on colour alone, because every state has a mark with its own
shape.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

from readtrack.present import marks
from readtrack.present.plain_ascii import one_column

if TYPE_CHECKING:
    from readtrack.reading_list.journal import State

_TONES = {"good": "$good", "doubtful": "$reading", "bad": "$bad", "quiet": "$muted"}

ARMS = 6


def tone_style(tone: str) -> str:
    """The style of one of the tones of `present.marks`; "" for any other word."""
    return _TONES.get(tone, "")


def verdict_mark(verdict: str, *, control: bool = False) -> tuple[str, str]:
    """The verdict's sign and style. In a control run, verdicts are not coloured as good or bad."""
    sign, tone = marks.verdict("not judged" if control else verdict)
    return sign, _TONES[tone]


def state_style(state: str) -> str:
    return f"${state}"


def state_mark(state: State | None) -> tuple[str, str]:
    """The state's sign and colour; a blank for a paper without a state."""
    return (marks.STATES[state], state_style(state)) if state is not None else (" ", "")


def arm_style(index: int) -> str:
    return f"$arm-{index % ARMS}"


def _theme(name: str, *, dark: bool, base: Mapping[str, str], variables: Mapping[str, str]) -> Theme:
    return Theme(
        name=name,
        dark=dark,
        primary=base["primary"],
        secondary=base["primary"],
        accent=base["primary"],
        foreground=base["foreground"],
        background=base["background"],
        surface=base["surface"],
        panel=base["panel"],
        success=variables["good"],
        warning=variables["reading"],
        error=variables["bad"],
        variables={
            **variables,
            "scrollbar": base["panel"],
            "scrollbar-hover": base["cursor"],
            "scrollbar-active": base["cursor"],
            "scrollbar-background": base["background"],
            "scrollbar-background-hover": base["background"],
            "scrollbar-background-active": base["background"],
            "scrollbar-corner-color": base["background"],
            "cursor": base["cursor"],
            "cursor-blurred": base["panel"],
        },
    )


INK = _theme(
    "ink",
    dark=True,
    base={
        "primary": "#8ab4f8",
        "foreground": "#d8dbe2",
        "background": "#15171c",
        "surface": "#1b1e25",
        "panel": "#232730",
        "cursor": "#2f3847",
    },
    variables={
        "heading": "#eceef3",
        "muted": "#9aa1ae",
        "faint": "#5b6270",
        "link": "#8ab4f8",
        "todo": "#9aa1ae",
        "reading": "#ecc06c",
        "read": "#8ed19b",
        "implemented": "#c4a7f5",
        "skipped": "#848b98",
        "good": "#8ed19b",
        "bad": "#f28b8b",
        "arm-0": "#7fb2ff",
        "arm-1": "#f0b429",
        "arm-2": "#7bd389",
        "arm-3": "#f28fad",
        "arm-4": "#b69df8",
        "arm-5": "#5fd0cf",
    },
)

PAPER = _theme(
    "paper",
    dark=False,
    base={
        "primary": "#1f5fbf",
        "foreground": "#2b2d33",
        "background": "#faf8f3",
        "surface": "#f3f0e9",
        "panel": "#e9e5dc",
        "cursor": "#dbe4f3",
    },
    variables={
        "heading": "#16181d",
        "muted": "#5e636e",
        "faint": "#9b9a94",
        "link": "#1f5fbf",
        "todo": "#5e636e",
        "reading": "#8a5a00",
        "read": "#24713a",
        "implemented": "#6b3fb5",
        "skipped": "#686c75",
        "good": "#24713a",
        "bad": "#b3261e",
        "arm-0": "#1f5fbf",
        "arm-1": "#a66a00",
        "arm-2": "#24713a",
        "arm-3": "#b8326a",
        "arm-4": "#6b3fb5",
        "arm-5": "#00706e",
    },
)

# For terminals with 256 colours. Every colour is in their palette, so that none is rounded to another.
INK_256 = _theme(
    "ink-256",
    dark=True,
    base={
        "primary": "#87afff",
        "foreground": "#dadada",
        "background": "#121212",
        "surface": "#1c1c1c",
        "panel": "#262626",
        "cursor": "#303030",
    },
    variables={
        "heading": "#eeeeee",
        "muted": "#a8a8a8",
        "faint": "#6c6c6c",
        "link": "#87afff",
        "todo": "#a8a8a8",
        "reading": "#ffd75f",
        "read": "#87d787",
        "implemented": "#d7afff",
        "skipped": "#8a8a8a",
        "good": "#87d787",
        "bad": "#ff8787",
        "arm-0": "#87afff",
        "arm-1": "#ffaf00",
        "arm-2": "#87d787",
        "arm-3": "#ff87af",
        "arm-4": "#af87ff",
        "arm-5": "#5fd7d7",
    },
)
PAPER_256 = _theme(
    "paper-256",
    dark=False,
    base={
        "primary": "#005faf",
        "foreground": "#303030",
        "background": "#ffffff",
        "surface": "#eeeeee",
        "panel": "#e4e4e4",
        "cursor": "#d7d7ff",
    },
    variables={
        "heading": "#121212",
        "muted": "#585858",
        "faint": "#949494",
        "link": "#005faf",
        "todo": "#585858",
        "reading": "#875f00",
        "read": "#005f00",
        "implemented": "#5f00af",
        "skipped": "#626262",
        "good": "#005f00",
        "bad": "#af0000",
        "arm-0": "#005faf",
        "arm-1": "#875f00",
        "arm-2": "#005f00",
        "arm-3": "#af005f",
        "arm-4": "#5f00af",
        "arm-5": "#005f5f",
    },
)

THEMES = {theme.name: theme for theme in (INK, PAPER, INK_256, PAPER_256)}
_OTHER = {"ink": "paper", "paper": "ink", "ink-256": "paper-256", "paper-256": "ink-256"}


def other_theme(name: str) -> str:
    """The theme with light and dark swapped and the same number of colours."""
    return _OTHER.get(name, INK.name)


def has_true_colour(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal reports true colour. Otherwise, 256 colours are assumed."""
    return environment.get("COLORTERM", "").casefold() in ("truecolor", "24bit")


def starting_theme(environment: Mapping[str, str] = os.environ) -> str:
    """The theme named by READTRACK_THEME, or the dark one, in the variant for the terminal's colours."""
    name = environment.get("READTRACK_THEME", "")
    name = name if name in THEMES else INK.name
    return name if has_true_colour(environment) or name.endswith("-256") else f"{name}-256"


def no_colours(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether NO_COLOR is set (to any value)."""
    return bool(environment.get("NO_COLOR"))


class Ascii(LineFilter):
    """Replaces all characters with ASCII as the last step of drawing, without changes in the widgets."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(one_column(text), style, control) if not text.isascii() else Segment(text, style, control)
            for text, style, control in segments
        ]


def wants_ascii(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to draw in ASCII: if READTRACK_ASCII=1, and on the Linux console and serial terminals, which
    lack braille.
    """
    asked = environment.get("READTRACK_ASCII", "")
    if asked:
        return asked not in ("0", "no", "false")
    return environment.get("TERM", "") in ("linux", "vt100", "vt102", "vt220", "dumb")
