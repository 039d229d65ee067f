"""The reading journal: states, tags and ratings of papers over time, as JSON lines.

Lines are only appended, so the journals of two machines can be merged by concatenating their lines, in any
order, with repeats: `fold` orders entries by `at`. An entry is

    {"at": "2026-11-21T08:30:00.000000+00:00", "id": "5f0c9a1e", "paper": "mamba", "state": "reading"}

or has a `tag` ("+gpu", "-gpu") or a `rating` (1 to 5, or null) in place of `state`. Entries written together
share their `id`; `{"at", "id", "undo": "5f0c9a1e"}` reverts them, and an undo of that undo restores them. An
`at` more than a day in the future comes from a wrong clock, so such a line is ordered by its position in the
file. `"ahead": ["2106-..."]` in an entry lists the wrong times of earlier lines, which could not be
recognised once they have passed. A row without papers is named `row:<key>`; its entries also have its wording
and place, `"about": ["Read the blog", "Attention", true]`.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from readtrack.errors import ReadtrackError
from readtrack.reading_list.rows import About
from readtrack.text import counted, one_line

State = Literal["todo", "reading", "read", "implemented", "skipped"]
STATES: tuple[State, ...] = get_args(State)
DONE_WITH: tuple[State, ...] = ("read", "implemented", "skipped")  # nothing is left to read


def finished(states: Mapping[Any, int]) -> tuple[int, int]:
    """Number of read papers, and number of papers that are not skipped."""
    return (
        states.get("read", 0) + states.get("implemented", 0),
        sum(states.values()) - states.get("skipped", 0),
    )


Entry: TypeAlias = dict[str, Any]

MAX_PROBLEMS = 20
_PLAUSIBLE = timedelta(days=1)  # ahead of our clock

_MAX_AHEAD = 100  # maximum number of wrong times in one entry

_FIELDS = ("at", "id", "paper", "state", "tag", "rating", "undo")  # entries that agree in these are the same

LONGEST_TAG = 80  # characters
_TAG = re.compile(rf"[+-]\w[\w.-]{{0,{LONGEST_TAG - 1}}}")
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_PAPER = re.compile(r"(?:row:)?\w[\w-]{0,199}")


@dataclass(slots=True)
class Reading:
    """The journal's record of one paper. `state` is None if the journal has none."""

    state: State | None = None
    history: list[tuple[str, State]] = field(default_factory=list)  # (when, state), oldest first
    tags: set[str] = field(default_factory=set)
    rating: int | None = None
    about: About | None = None  # the row, for a row without papers

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recorded."""
        return self.state in (None, "todo") and not self.tags and self.rating is None

    @property
    def since(self) -> str | None:
        """The day (`2026-11-21`, in the reader's time zone) since which `state` holds."""
        if not self.history:
            return None
        at, _ = self.history[-1]
        for when, state in reversed(self.history):
            if state != self.state:
                break
            at = when
        return datetime.fromisoformat(at).astimezone().date().isoformat()


_NOTHING = Reading()  # for papers that the journal does not mention; read-only


@dataclass(slots=True)
class JournalView:
    """The folded journal.

    `last` has the entries that an undo would revert. `undone` has the undo that a redo would revert, followed
    by the entries that the redo restores; it is empty if there is nothing to redo.
    """

    readings: dict[str, Reading]
    last: list[Entry]
    problems: list[str]
    latest: str = ""  # the latest plausible `at`
    ahead: list[str] = field(default_factory=list)  # every wrong `at` that no entry lists as wrong yet
    undone: list[Entry] = field(default_factory=list)

    def of(self, paper: str) -> Reading:
        return self.readings.get(paper, _NOTHING)


class Journal:
    """The journal file at `path`; `lock` returns the lock for appending, which excludes other processes."""

    def __init__(self, path: Path, lock: Callable[[], AbstractContextManager[Any]]) -> None:
        self.path = path
        self._lock = lock

    def load(self) -> JournalView:
        """Load and fold the file. Raises ReadtrackError if that fails. Malformed lines become problems."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise ReadtrackError(f"Could not read the journal {self.path}: {error.strerror}.") from error
        entries, problems = [], []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entries.append(parse(line))
            except ValueError as error:
                problems.append(
                    f"{one_line(self.path.name)}:{number}: {error}; skipped. You can delete the line"
                )
        if len(problems) > MAX_PROBLEMS:
            more = f"{self.path.name}: {counted(len(problems) - MAX_PROBLEMS, 'more line')} skipped"
            problems = [*problems[:MAX_PROBLEMS], more]
        view = fold(entries)
        view.problems = problems
        return view

    def append(
        self,
        papers: Sequence[str],
        *,
        about: Mapping[str, About] = MappingProxyType({}),
        **change: State | str | int | None,
    ) -> None:
        """Record a change for each of `papers`: `state=`, `tag=` ("+gpu", "-gpu") or `rating=`.

        `about` describes the rows among `papers`. One undo reverts all changes. Raises ReadtrackError, and
        writes nothing, if `parse` would reject the change.
        """
        self.append_all([(paper, change) for paper in papers], about=about)

    def append_all(
        self,
        changes: Sequence[tuple[str, Mapping[str, State | str | int | None]]],
        *,
        about: Mapping[str, About] = MappingProxyType({}),
    ) -> None:
        """`append` for several papers and changes, each a pair such as `("adam", {"tag": "+gpu"})`."""
        with self._locked():
            stamp = self._stamp(self.load())
            rows = {name: {"about": list(row)} for name, row in about.items()}
            self._write(
                [{**stamp, "paper": paper, **change, **rows.get(paper, {})} for paper, change in changes]
            )

    def undo(self) -> list[Entry]:
        """Revert the last effective change, and return its entries ([] if there is none)."""
        with self._locked():
            view = self.load()
            if view.last:
                self._write([{**self._stamp(view), "undo": view.last[0]["id"]}])
            return view.last

    def redo(self) -> list[Entry]:
        """Revert the last undo, if nothing was changed since, and return the restored entries."""
        with self._locked():
            view = self.load()
            if view.undone:
                self._write([{**self._stamp(view), "undo": view.undone[0]["id"]}])
            return view.undone[1:]

    def _stamp(self, view: JournalView) -> Entry:
        now = datetime.now(UTC)
        # Later than all existing entries, even if another machine's clock is slightly ahead, because the last
        # entry wins.
        if view.latest:
            now = max(now, datetime.fromisoformat(view.latest) + timedelta(microseconds=1))
        stamp = {"at": now.isoformat(timespec="microseconds"), "id": os.urandom(4).hex()}
        return {**stamp, "ahead": view.ahead} if view.ahead else stamp

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock())
            except TimeoutError as error:
                text = f"Another program has locked the journal {self.path} for too long. Try again."
                raise ReadtrackError(text) from error
            except OSError as error:
                raise ReadtrackError(f"Could not lock the journal {self.path}: {error.strerror}.") from error
            yield

    def _write(self, entries: list[Entry]) -> None:
        lines = [json.dumps(entry, ensure_ascii=False).encode() for entry in entries]
        for line in lines:
            try:
                parse(line)
            except ValueError as error:
                raise ReadtrackError(f"{error}.") from error
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                data = b"\n" * torn + b"".join(line + b"\n" for line in lines)
                if os.write(descriptor, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ReadtrackError(f"Could not write the journal {self.path}: {error.strerror}.") from error


def parse(line: bytes) -> Entry:
    """Parse a line as an entry, with `at` in UTC with microseconds. Raises ValueError with the reason."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not a complete JSON line") from None
    if not isinstance(entry, dict):
        raise ValueError("not a journal entry")
    entry["at"] = _utc(entry.get("at"))
    if "id" not in entry:  # written by hand: equal lines get equal ids
        from zlib import crc32

        entry["id"] = f"{crc32(json.dumps(entry, sort_keys=True).encode()):08x}"
    if not _matches(_ID, entry["id"]):
        raise ValueError("'id' is not a valid id")
    if "undo" in entry:
        if not _matches(_ID, entry["undo"]):
            raise ValueError("'undo' does not name an entry")
        return entry
    if not _matches(_PAPER, entry.get("paper")):
        raise ValueError("no paper is named")
    if "state" in entry:
        if entry["state"] not in STATES:
            raise ValueError(f"'state' is not one of {', '.join(STATES)}")
    elif "tag" in entry:
        if not _matches(_TAG, entry["tag"]):
            raise ValueError(
                f"a tag is a word of letters, digits, '-', '_' and '.', at most {LONGEST_TAG} characters"
            )
    elif "rating" not in entry:
        raise ValueError("it has no state, tag, rating or undo")
    elif not (entry["rating"] is None or (type(entry["rating"]) is int and 1 <= entry["rating"] <= 5)):
        raise ValueError("a rating is a whole number from 1 to 5, or null")
    return entry


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _utc(at: object) -> str:
    try:
        moment = datetime.fromisoformat(at if isinstance(at, str) else "")
        if not 1970 < moment.year < 2200:
            raise ValueError
    except ValueError:
        raise ValueError("'at' is not a time such as 2026-11-21T08:30:00+00:00") from None
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.isoformat(timespec="microseconds")


def _about(entry: Entry) -> About | None:
    match entry.get("about"):
        case [str(text), str(place), bool(alone)]:
            return About(one_line(text), one_line(place), alone)
    return None


def latest_plausible() -> str:
    """The latest `at` from a clock that is at most a day fast."""
    return (datetime.now(UTC) + _PLAUSIBLE).isoformat(timespec="microseconds")


def fold(entries: Iterable[Entry]) -> JournalView:
    """The state after `entries`, which may come in any order and more than once.

    Only entries dated more than a day ahead must come after the entries that existed when they were written.
    """
    unique = {tuple(str(entry.get(name)) for name in _FIELDS): entry for entry in entries}
    called_wrong = {at for entry in unique.values() if "ahead" in entry for at in _called_wrong(entry)}
    limit = latest_plausible()
    ahead = {at for entry in unique.values() if (at := entry["at"]) > limit}
    ordered = _ordered(unique, called_wrong | ahead)
    undone: set[str] = set()
    for entry in reversed(ordered):  # a reverted undo has no effect
        if "undo" in entry and entry["id"] not in undone:
            undone.add(entry["undo"])
    latest = max((entry["at"] for entry in ordered), default="")
    view = JournalView({}, [], [], latest, sorted(ahead - called_wrong)[:_MAX_AHEAD])
    for entry in ordered:
        if "undo" in entry or entry["id"] in undone:
            continue
        view.last = [*view.last, entry] if view.last and view.last[0]["id"] == entry["id"] else [entry]
        reading = view.readings.setdefault(entry["paper"], Reading())
        reading.about = _about(entry) or reading.about
        if "state" in entry:
            reading.state = entry["state"]
            reading.history.append((entry["at"], entry["state"]))
        elif "tag" in entry:
            change = reading.tags.add if entry["tag"][0] == "+" else reading.tags.discard
            change(entry["tag"][1:])
        else:
            reading.rating = entry["rating"]
    view.undone = _redoable(ordered, undone)
    return view


def _called_wrong(entry: Entry) -> list[str]:
    """The times that an entry lists as wrong, if they are a day or more after its own."""
    named = entry["ahead"] if isinstance(entry["ahead"], list) else []
    limit = (datetime.fromisoformat(entry["at"]) + _PLAUSIBLE).isoformat(timespec="microseconds")
    return [at for at in named if isinstance(at, str) and at > limit]


def _ordered(unique: Mapping[tuple[str, ...], Entry], wrong: Container[str]) -> list[Entry]:
    """Entries by time. An entry with a wrong time gets the latest time of the lines above it."""
    right = [entry["at"] for entry in unique.values() if entry["at"] not in wrong]
    place, since = "", min(right, default=datetime.now(UTC).isoformat(timespec="microseconds"))
    found: list[tuple[str, int, tuple[str, ...], Entry]] = []
    for number, (key, entry) in enumerate(unique.items(), start=1):
        if entry["at"] in wrong:
            found.append((place, number, key, {**entry, "at": place or since}))
        else:
            place = max(place, entry["at"])
            found.append((entry["at"], 0, key, entry))
    return [entry for *_, entry in sorted(found, key=lambda one: one[:3])]


def _redoable(ordered: Sequence[Entry], undone: Container[str]) -> list[Entry]:
    """The last effective undo, and the entries it reverted; empty if a change followed it."""
    undos = {entry["id"] for entry in ordered if "undo" in entry}
    for entry in reversed(ordered):
        if "undo" not in entry:
            return []
        if entry["id"] not in undone and entry["undo"] not in undos:
            return [entry, *(change for change in ordered if change["id"] == entry["undo"])]
    return []
