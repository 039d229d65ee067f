"""Draws a year of reading with a square for each day, and states by section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from readtrack.reading_list.journal import STATES
from readtrack.report.words import STATES as NAMES
from readtrack.statistics import WEEKS, Statistics
from readtrack.svg import Drawn, element, percent, text

_CELL = 12  # pixels
_LEVELS = ((4, "implemented"), (3, "read"), (2, "reading"), (1, "skipped"), (0, "todo"))


def heat_map(found: Statistics) -> Drawn:
    """The heat map, with a column for each week and the newest on the right. Busier days are darker."""
    monday = found.today - timedelta(days=found.today.weekday())
    first = monday - timedelta(weeks=WEEKS - 1)
    most = max((count for day, count in found.days.items() if day >= first), default=0)
    marks: list[str] = []
    months = ""
    for week in range(WEEKS):
        start = first + timedelta(weeks=week)
        x = 34 + week * _CELL
        if start.day <= 7 and start.strftime("%b") != months:
            months = start.strftime("%b")
            marks.append(text(months, x=x, y=12))
        for weekday in range(7):
            day = start + timedelta(days=weekday)
            if day <= found.today:
                count = found.days[day]
                level = 0 if not count else max(1, -(-4 * count // most))
                said = element("title", f"{day.isoformat()}: {count} change{'' if count == 1 else 's'}")
                place = {"x": x, "y": 20 + weekday * _CELL, "width": _CELL - 2, "height": _CELL - 2}
                marks.append(element("rect", said, class_=f"d{level}", **place) if count else
                             element("rect", class_="d0", **place))  # fmt: skip
    marks += [
        text(name, x=0, y=29 + 2 * _CELL * row) for row, name in enumerate(("Mon", "Wed", "Fri", "Sun"))
    ]
    return element(
        "svg", *marks, class_="heat", width=34 + WEEKS * _CELL, height=22 + 7 * _CELL, role="img",
        aria_label=f"Changes of state in the last year: {found.this_year} on {_active(found)} days.",
    )  # fmt: skip


def _active(found: Statistics) -> int:
    start = found.today - timedelta(days=365)
    return sum(count > 0 and day > start for day, count in found.days.items())


def states_bar(states: Mapping[str, int]) -> Drawn:
    """A bar of papers by state, with finished ones on the left."""
    total = sum(states.values()) or 1
    marks, x = [], 0.0
    for level, state in _LEVELS:
        share = 100 * states.get(state, 0) / total
        if share:
            marks.append(element("rect", class_=f"d{level}", x=percent(x), width=percent(share), height=12))
        x += share
    return element("svg", *marks, width="100%", height=12, aria_hidden="true")


def in_words(states: Counter[str]) -> str:
    """Text such as `3 read, 1 reading, 8 to read`."""
    return ", ".join(f"{states[state]} {NAMES[state].lower()}" for state in reversed(STATES) if states[state])
