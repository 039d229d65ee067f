"""Suggest exercises: first those due for repetition, then along the lineage of implemented papers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from readtrack.library import Library
from readtrack.practice.diary import Diary, PracticeStanding
from readtrack.practice.sheet import Sheet, has_exercises, sheets


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An exercise to write, and why.

    again   it was passed before, and --reset restarts it
    reason  a sentence without a full stop
    """

    sheet: Sheet
    reason: str
    again: bool = False

    @property
    def command(self) -> str:
        name = f"'{self.sheet.name}'" if " " in self.sheet.name else self.sheet.name
        return f"readtrack practice {self.sheet.paper}" + (f" {name} --reset" if self.again else "")


def suggestions(library: Library, now: datetime | None = None) -> Iterator[Suggestion]:
    """Yield exercises due for repetition (longest overdue first), then those of papers begun, then others.

    The others are ordered by the number of prerequisites not yet implemented (fewest first), then by the
    number of implemented ones (most first).
    """
    now = now or datetime.now(UTC)
    diary = Diary(library.home)
    entries = diary.entries()
    touched = dict.fromkeys(entry.paper for entry in reversed(entries))
    practised = {name for name, plugin in library.runnable().items() if has_exercises(plugin)}
    standings = {paper: _standings(library, diary, paper) for paper in touched if paper in practised}
    yield from _due(standings, now)
    for found in standings.values():
        open_ones = [sheet for sheet, one in found if one.passed is None and not one.skipped]
        if open_ones:
            done = sum(one.passed is not None for _, one in found)
            yield Suggestion(open_ones[0], f"you have begun this paper: {done} of {len(found)} done")
    for paper, reason in _papers(library, practised - standings.keys()):
        own = sheets(library.runnable()[paper])
        if own:
            yield Suggestion(own[0], reason)


def _standings(library: Library, diary: Diary, paper: str) -> list[tuple[Sheet, PracticeStanding]]:
    own = sheets(library.runnable()[paper])
    found = diary.standings(paper, [sheet.name for sheet in own])
    return [(sheet, found[sheet.name]) for sheet in own]


def _due(standings: dict[str, list[tuple[Sheet, PracticeStanding]]], now: datetime) -> Iterator[Suggestion]:
    due = [(one.due, sheet, one) for found in standings.values() for sheet, one in found if one.due]
    for when, sheet, one in sorted(due, key=lambda found: found[0]):
        if when <= now and one.passed is not None:
            days = (now - one.passed).days
            yield Suggestion(sheet, f"you wrote it {days} days ago; can you still write it?", again=True)


def _papers(library: Library, candidates: set[str]) -> list[tuple[str, str]]:
    """Papers with a reason for each, best first."""
    papers = library.catalog.papers
    implemented = {id_ for id_ in papers if library.state(id_) == "implemented"}
    found: list[tuple[tuple[int, int, int], str, str]] = []
    for place, id_ in enumerate([*library.listed, *sorted(candidates - library.listed.keys())]):
        if id_ not in candidates or id_ in implemented:
            continue
        parents = papers[id_].builds_on if id_ in papers else ()
        known = [one for one in parents if one in implemented]
        missing = [one for one in parents if one in candidates and one not in implemented]
        if missing:
            reason = f"it builds on {', '.join(missing)}, which you have not implemented yet"
        elif known:
            reason = f"you have implemented {', '.join(known)}, which it builds on"
        else:
            reason = "it builds on no other paper with exercises"
        found.append(((len(missing), -len(known), place), id_, reason))
    return [(id_, reason) for _, id_, reason in sorted(found)]
