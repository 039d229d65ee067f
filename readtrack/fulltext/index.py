"""A full-text index beside the files that it is made from: cache/search.sqlite, by SQLite's FTS5.

Everything in it can be made again, and is when it is damaged, deleted or of another version. `refresh` looks
which files changed and reads only those. A row number says whose text it is, of which kind, and the page, so
that a keystroke over many papers reads no text. Pages of PDFs are a table of their own.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from readtrack.errors import ReadtrackError
from readtrack.reading_list.search import folded, spans

if TYPE_CHECKING:
    from readtrack.fulltext.units import Unit
    from readtrack.library import Library
    from readtrack.reading_list.catalog import Catalog

_VERSION = 2
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_T = TypeVar("_T")
Table: TypeAlias = Literal["texts", "pages"]

# Where a text stands, the place that says most first: the rank of what is found there.
KINDS = ("name", "title", "row", "author", "summary", "abstract", "note", "pdf")
_PDF = KINDS.index("pdf")
_LISTED = KINDS.index("abstract")  # kinds before this one come from the list
_SUBJECT, _KIND, _PART = 1 << 24, 1 << 20, (1 << 20) - 1  # a row's number: subject, kind, page or part

_TABLES = """
CREATE TABLE seen (unit TEXT PRIMARY KEY, stamp TEXT);
CREATE TABLE subjects (number INTEGER PRIMARY KEY, subject TEXT UNIQUE);
CREATE VIRTUAL TABLE texts USING fts5(body, tokenize='unicode61 remove_diacritics 2', prefix='1 2 3');
CREATE VIRTUAL TABLE pages USING fts5(body, tokenize='unicode61 remove_diacritics 2', prefix='3');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(texts, row);
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a subject fits best: the kind of text, the page of a PDF, the words around.

    What was found stands between \\x01 and \\x02.
    """

    subject: str
    kind: str
    page: int
    snippet: str


class FullText:
    """One index. Its methods may be called from any thread; `refresh` from one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._subjects: dict[int, str] = {}
        self._ordered: tuple[Catalog, dict[str, None]] | None = None
        self.ready = False  # whether a refresh was through since it was opened

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    # Filling

    def refresh(
        self, library: Library, *, pdfs: bool = True, progress: Callable[[str], None] = lambda unit: None
    ) -> None:
        """Read what changed since the last time. Another process that does so now is not waited for long."""
        from readtrack.fulltext.units import units

        wanted = {unit.name: unit for unit in units(library) if pdfs or unit.table != "pages"}
        seen = dict(self._rows("SELECT unit, stamp FROM seen"))
        gone = {name for name in seen if name not in wanted and (pdfs or not name.startswith("pdf:"))}
        with suppress(_BusyError):
            if gone:
                self._guarded(partial(self._forget, units=gone))
            changed = [unit for unit in wanted.values() if seen.get(unit.name) != unit.stamp]
            # Texts in one go, as there may be thousands; PDFs one by one, as each takes a while.
            self._guarded(partial(self._put, units=[unit for unit in changed if unit.table == "texts"]))
            for unit in changed:
                if unit.table == "pages":
                    progress(unit.name)
                    texts = list(unit.texts())  # takes a while; searches go on meanwhile
                    self._guarded(partial(self._put, units=[replace(unit, texts=partial(iter, texts))]))
        self._subjects = dict(self._rows("SELECT number, subject FROM subjects"))
        self.ready = True

    @classmethod
    def _forget(cls, db: sqlite3.Connection, units: Iterable[str]) -> None:
        for name in units:
            kind, _, subject = name.partition(":")
            if kind == "list":
                db.execute(f"DELETE FROM texts WHERE (rowid / {_KIND}) % 16 < {_LISTED}")
            else:
                first = cls._number(db, subject) * _SUBJECT + KINDS.index(kind) * _KIND
                table = "pages" if kind == "pdf" else "texts"
                db.execute(f"DELETE FROM {table} WHERE rowid BETWEEN ? AND ?", (first, first + _PART))
            db.execute("DELETE FROM seen WHERE unit = ?", (name,))

    @classmethod
    def _put(cls, db: sqlite3.Connection, units: Sequence[Unit]) -> None:
        numbers = {subject: number for number, subject in db.execute("SELECT number, subject FROM subjects")}
        for unit in units:
            cls._forget(db, [unit.name])
            parts: dict[tuple[str, str], int] = {}
            rows = []
            for subject, kind, page, body in unit.texts():
                if subject not in numbers:
                    numbers[subject] = cls._number(db, subject)
                part = parts[subject, kind] = page or parts.get((subject, kind), 0) + 1
                number = numbers[subject] * _SUBJECT + KINDS.index(kind) * _KIND + min(part, _PART)
                rows.append((number, body))
            db.executemany(f"INSERT OR REPLACE INTO {unit.table} (rowid, body) VALUES (?, ?)", rows)
            db.execute("INSERT INTO seen VALUES (?, ?)", (unit.name, unit.stamp))

    @staticmethod
    def _number(db: sqlite3.Connection, subject: str) -> int:
        db.execute("INSERT OR IGNORE INTO subjects (subject) VALUES (?)", (subject,))
        (number,) = db.execute("SELECT number FROM subjects WHERE subject = ?", (subject,)).fetchone()
        return int(number)

    # Asking

    def order(self, catalog: Catalog, make: Callable[[], dict[str, None]]) -> dict[str, None]:
        """The list's subjects in order: made once for each catalog."""
        if self._ordered is None or self._ordered[0] is not catalog:
            self._ordered = (catalog, make())
        return self._ordered[1]

    def places(self, text: str, *, phrase: bool = False) -> dict[str, int]:
        """The subjects with this word (or one that begins so) or phrase, each with its best text's number."""
        wanted = _match(text, phrase=phrase)
        best: dict[int, int] = {}
        tables: tuple[Table, ...] = ("texts",) if len(text) < 3 else ("texts", "pages")
        for table in tables if wanted else ():
            first = f"SELECT min(rowid) FROM {table} WHERE {table} MATCH ? GROUP BY rowid / {_SUBJECT}"
            for (number,) in self._rows(first, (wanted,)):
                best.setdefault(number // _SUBJECT, number)
        names = self._subjects
        return {names[subject]: number for subject, number in best.items() if subject in names}

    def hits(self, texts: Iterable[str], places: dict[str, int]) -> dict[str, Hit]:
        """The words around, for each subject in the text of this number."""
        wanted = list(texts)
        bodies: dict[int, str] = {}
        for table, is_pdf in (("texts", False), ("pages", True)):
            numbers = [number for number in places.values() if (rank(number) == _PDF) == is_pdf]
            for start in range(0, len(numbers), 500):
                some = numbers[start : start + 500]
                marks = ",".join("?" * len(some))
                bodies |= dict(self._rows(f"SELECT rowid, body FROM {table} WHERE rowid IN ({marks})", some))
        return {
            subject: Hit(subject, KINDS[rank(number)], number & _PART if rank(number) == _PDF else 0, around)
            for subject, number in places.items()
            if (around := _around(bodies.get(number, ""), wanted)) or number in bodies
        }

    def near(self, word: str) -> list[str]:
        """Words of titles and notes that are a slip away from this one; the first letter is right."""
        from readtrack.reading_list.search import is_near

        plain = folded(word)
        query = "SELECT term FROM vocabulary WHERE term >= ? AND term < ? ORDER BY doc DESC"
        bounds = (plain[:1], plain[:1] + "\U0010ffff")
        return [term for (term,) in self._rows(query, bounds) if is_near(plain, term)][:5]

    # The file

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        return self._guarded(lambda db: db.execute(query, values).fetchall())

    def _guarded(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """`work` in a transaction; on a damaged file once more, on a new one. What was in it comes with the
        next refresh. Raises ReadtrackError if that does not help either.
        """
        with self._lock:
            for attempt in (1, 2):
                try:
                    db = self._open()
                    with db:
                        return work(db)
                except sqlite3.Error as error:
                    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
                        raise _BusyError("another program is filling the search index; try again.") from error
                    self.close()
                    self.ready = False
                    if attempt == 2:
                        raise ReadtrackError(
                            f"the search index {self._path} cannot be used: {error}."
                        ) from error
                    self._delete()
        raise AssertionError("unreachable")

    def _delete(self) -> None:
        try:
            for path in (self._path, self._path.with_name(f"{self._path.name}-journal")):
                path.unlink(missing_ok=True)
        except OSError as error:
            text = f"the search index {self._path} cannot be made again: {error.strerror}."
            raise ReadtrackError(text) from error

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = self._connect(str(self._path) if self._path.parent.is_dir() else ":memory:")
        return self._db

    @staticmethod
    def _connect(name: str) -> sqlite3.Connection:
        db = sqlite3.connect(name, timeout=2, check_same_thread=False)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            if version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                db.close()
                raise sqlite3.DatabaseError("made by another version")
            db.executescript(f"BEGIN IMMEDIATE;{_TABLES}PRAGMA user_version = {_VERSION};COMMIT;")
        db.execute("PRAGMA synchronous = OFF")  # what a crash takes is made again
        return db


class _BusyError(ReadtrackError):
    pass


def rank(number: int) -> int:
    """Of a text's kind: small says most."""
    return number // _KIND % 16


def _match(text: str, *, phrase: bool) -> str:
    """FTS5's word for it: in quotes, so that nothing in it is an operator; the last word may go on."""
    if not any(c.isalnum() for c in text):
        return ""
    quoted = text.replace('"', '""').replace("\0", " ")
    return f'"{quoted}"' if phrase else f'"{quoted}"*'


def _around(body: str, wanted: Sequence[str], reach: int = 70) -> str:
    r"""Some words of `body` about the first of the wanted ones, that one in \x01..\x02."""
    flat = body.casefold()
    if len(flat) == len(body):  # the quick way, for words without accents
        at, word = min(((flat.find(one), one) for one in wanted if one in flat), default=(-1, ""))
        found = (at, at + len(word)) if at >= 0 else None
    else:
        found = None
    if found is None:
        found = min(spans(body, wanted), default=None)
    if found is None:
        return body[: 2 * reach]
    start, end = found
    while end < len(body) and body[end].isalnum():
        end += 1
    low = body.rfind(" ", 0, max(0, start - reach)) + 1
    high = body.find(" ", min(len(body), end + reach))
    high = len(body) if high < 0 else high
    before, after = "… " if low else "", " …" if high < len(body) else ""
    return f"{before}{body[low:start]}\x01{body[start:end]}\x02{body[end:high]}{after}"
