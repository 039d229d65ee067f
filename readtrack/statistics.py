"""Reading statistics: states by section, activity by day, streaks and pages."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from readtrack.fulltext import pdf
from readtrack.library import Library
from readtrack.reading_list.catalog import Row, Section
from readtrack.reading_list.journal import STATES

WEEKS = 53
_READ = ("read", "implemented")
_LEVELS = "·░▒▓█"


@dataclass(frozen=True, slots=True)
class Statistics:
    """`days`: state changes by day, except to "todo"; `sections`: (title, number of papers by state).

    pages            total pages of the read papers whose length is known; `unknown`: number of the others
    streak, longest  number of consecutive days: up to today or yesterday, and the longest ever
    """

    states: Counter[str]
    sections: list[tuple[str, Counter[str]]]
    days: Counter[date]
    today: date
    pages: int
    unknown: int

    @property
    def streak(self) -> int:
        end = self.today if self.days[self.today] else self.today - timedelta(days=1)
        length = 0
        while self.days[end - timedelta(days=length)]:
            length += 1
        return length

    @property
    def longest(self) -> int:
        best = length = 0
        before: date | None = None
        for day in sorted(self.days):
            length = length + 1 if before is not None and day - before == timedelta(days=1) else 1
            best, before = max(best, length), day
        return best

    @property
    def sentence(self) -> str:
        changes = _count(self.this_year, "change")
        left_out = f", {_count(self.unknown, 'paper')} of unknown length left out" if self.unknown else ""
        return (
            f"{changes} in the last year; streak: {_count(self.streak, 'day')} (longest: {self.longest}); "
            f"{_count(self.pages, 'page')} read{left_out}."
        )

    @property
    def this_year(self) -> int:
        start = self.today - timedelta(days=365)
        return sum(count for day, count in self.days.items() if day > start)


def statistics(library: Library, today: date | None = None) -> Statistics:
    """Statistics of the journal and the list. `today` is in the reader's time zone."""
    sections: list[tuple[str, Counter[str]]] = []
    inside: set[str] = set()
    everything: set[str] = set()
    for _, item in library.catalog.walk():
        if isinstance(item, Section):
            inside = set()
            sections.append((item.title, Counter()))
        elif isinstance(item, Row):
            for subject in item.papers or (item.subject,):
                if subject not in inside:
                    inside.add(subject)
                    sections[-1][1][library.state(subject)] += 1
                everything.add(subject)
    days = Counter(
        datetime.fromisoformat(at).astimezone().date() for at, state in library.history() if state != "todo"
    )
    read = [subject for subject in sorted(everything) if library.state(subject) in _READ]
    pages = [_pages(library, subject) for subject in read if subject in library.catalog.papers]
    return Statistics(
        Counter({state: sum(library.state(s) == state for s in everything) for state in STATES}),
        sections,
        days,
        today or date.today(),
        sum(pages),
        pages.count(0),
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _pages(library: Library, paper: str) -> int:
    """The number of pages of the paper's PDF, or else in arXiv's comment (`15 pages, 5 figures`), or 0."""
    path = library.pdf(paper)
    if path is not None:
        with suppress(pdf.UnreadableError):
            return pdf.page_count(library.home, path)
    comment = (library.metadata(paper) or {}).get("comment")
    found = re.search(r"(\d+)\s*(?:pages|pp)", comment) if isinstance(comment, str) else None
    return int(found[1]) if found else 0


def heat_map(one: Statistics, weeks: int = WEEKS) -> list[str]:
    """The last weeks as a line of months and one line per day of the week, newest week on the right."""
    monday = one.today - timedelta(days=one.today.weekday())
    starts = [monday - timedelta(weeks=weeks - 1 - number) for number in range(weeks)]
    most = max((one.days[day] for day in one.days if day >= starts[0]), default=0)
    months = [" "] * (weeks + 3)
    for number, start in enumerate(starts):
        if start.day <= 7 and "".join(months[number : number + 3]).isspace():
            months[number : number + 3] = start.strftime("%b")
    lines = ["".join(months).rstrip()]
    for weekday in range(7):
        days = [start + timedelta(days=weekday) for start in starts]
        signs = (_LEVELS[_level(one.days[day], most)] if day <= one.today else " " for day in days)
        lines.append("".join(signs))
    labels = ("", "Mon", "", "Wed", "", "Fri", "", "Sun")
    return [f"{label:<4}{line}" for label, line in zip(labels, lines, strict=True)]


def _level(count: int, most: int) -> int:
    """0 for no changes, otherwise 1 to 4: the quarter of the maximum into which the number falls."""
    return 0 if not count else max(1, -(-4 * count // most))
