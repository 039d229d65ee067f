"""The reader's practice history: the append-only `practice/log.jsonl` in the home."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from readtrack import regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.text import plain

Did = Literal["opened", "tried", "hint", "solution", "reset", "skipped", "resumed", "chosen"]

_LARGEST = 64 << 20  # size limit of the log in bytes
_PAUSE = timedelta(minutes=15)  # after this long without an entry, the reader is taken to be away
_BEGINNINGS = ("chosen", "reset", "resumed", "skipped")  # entries that do not end a period of work
_INTERVALS = (7, 21, 60, 180)  # days from passing an exercise to its next repetition


@dataclass(frozen=True, slots=True)
class PracticeEntry:
    """A line in the log.

    A try also has an outcome (`readtrack.practice.judge.Outcome`) and a digest of the code.
    """

    at: datetime
    paper: str
    exercise: str
    did: str
    outcome: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class PracticeStanding:
    """The state of one exercise.

    passed   time of the last pass since the last reset; None if it has not passed
    passes   number of passes, at most one per reset
    tries    number of tries since the last reset. Trying the same code again does not count
    last     outcome of the last try, or ""
    hints    number of hints opened
    seconds  time spent on it
    """

    name: str
    passed: datetime | None = None
    passes: int = 0
    tries: int = 0
    last: str = ""
    hints: int = 0
    seconds: float = 0.0
    skipped: bool = False
    solution: bool = False

    @property
    def due(self) -> datetime | None:
        """When the exercise should be written again. The interval grows with each pass."""
        if self.passed is None:
            return None
        days = _INTERVALS[min(self.passes, len(_INTERVALS)) - 1]
        return self.passed + timedelta(days=days)


class Diary:
    """The log. Reading never fails, because invalid lines are skipped."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = home.practice / "log.jsonl"

    def entries(self, paper: str | None = None) -> list[PracticeEntry]:
        """All entries, or those of a paper, oldest first."""
        try:
            text = regular.read_bytes(self._path, _LARGEST).decode("utf-8", "replace")
        except OSError:
            return []
        found = [entry for line in text.splitlines() if (entry := _entry(line)) is not None]
        return [entry for entry in found if paper in (None, entry.paper)]

    def add(self, paper: str, exercise: str, did: Did, **more: Any) -> None:
        """Append an entry. Raises ReadtrackError if it cannot be written."""
        self._home.ensure(self._home.practice)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps(
            {"at": at, "paper": paper, "exercise": exercise, "did": did, **more}, ensure_ascii=False
        )
        with self._home.holding("practice"):
            try:
                descriptor = regular.descriptor(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                with os.fdopen(descriptor, "ab") as file:
                    file.write(line.encode() + b"\n")
            except OSError as error:
                raise ReadtrackError(f"Could not write {self._path}: {error.strerror}.") from error

    def standings(self, paper: str, names: Iterable[str]) -> dict[str, PracticeStanding]:
        """The state of each exercise, by name."""
        entries = self.entries(paper)
        seconds = _seconds(entries)
        return {
            name: _standing(name, [one for one in entries if one.exercise == name], seconds.get(name, 0.0))
            for name in names
        }

    def chosen(self, paper: str, names: list[str]) -> str | None:
        """The exercise to continue with; None if there is none.

        This is the last one chosen or, if that is done, the first that is neither done nor skipped.
        """
        standings = self.standings(paper, names)
        open_ones = [name for name in names if standings[name].passed is None and not standings[name].skipped]
        last = next((one.exercise for one in reversed(self.entries(paper)) if one.did == "chosen"), None)
        return last if last in open_ones else next(iter(open_ones), None)


def _standing(name: str, entries: list[PracticeEntry], seconds: float) -> PracticeStanding:
    passed: datetime | None = None
    passes = tries = hints = 0
    skipped = solution = False
    fresh, last, code = True, "", ""
    for one in entries:
        if one.did == "reset":
            passed, tries, hints, solution, fresh, last, code = None, 0, 0, False, True, "", ""
        elif one.did == "tried":
            tries += not code or one.code != code
            last, code = one.outcome, one.code
            if one.outcome != "passed":
                passed = None
            elif passed is None:
                passed, passes, fresh = one.at, passes + fresh, False
        hints += one.did == "hint"
        solution = solution or one.did == "solution"
        skipped = one.did == "skipped" or (skipped and one.did != "resumed")
    return PracticeStanding(name, passed, passes, tries, last, hints, seconds, skipped, solution)


def _seconds(entries: list[PracticeEntry]) -> dict[str, float]:
    """Seconds per exercise: the time before each of its entries, unless the reader was away.

    A check tries all exercises, and the time before it counts for the first one whose code is new. The time
    before an exercise is chosen or reset counts for none.
    """
    spent: dict[str, float] = {}
    codes: dict[str, str] = {}
    waiting = timedelta()
    for before, one in zip(entries[:1] + entries, entries, strict=False):
        gap = one.at - before.at
        waiting += gap if timedelta() < gap < _PAUSE else timedelta()
        if one.did in _BEGINNINGS:
            waiting = timedelta()
        elif one.did != "tried" or not one.code or codes.get(one.exercise) != one.code:
            spent[one.exercise] = spent.get(one.exercise, 0.0) + waiting.total_seconds()
            waiting = timedelta()
        if one.did == "tried":
            codes[one.exercise] = one.code
    return spent


def _entry(line: str) -> PracticeEntry | None:
    try:
        found = json.loads(line)
        at = datetime.fromisoformat(found["at"])
        texts = [plain(str(found.get(name, ""))) for name in ("paper", "exercise", "did", "outcome", "code")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return PracticeEntry(at if at.tzinfo else at.replace(tzinfo=UTC), *texts)
