"""The full-text index of a home: cache/search.sqlite, with SQLite's FTS5.

The index is rebuilt if it is damaged, deleted or of another version. If the file cannot be
written, the index is in memory. `refresh` checks which files changed and reads only those. A row number
encodes subject, kind and page of its text, so that a search after a keystroke need not read texts.

Names and titles are not in the index. They are scanned for each word, because there a word also matches
inside another ("former" finds "transformer"). Other texts match at the beginnings of their words.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from readtrack.errors import ReadtrackError
from readtrack.fulltext.words import is_near, spans, worded

if TYPE_CHECKING:
    from readtrack.fulltext.units import Head, Text, Unit
    from readtrack.home import Home
    from readtrack.library import Library
    from readtrack.reading_list.catalog import Catalog

_VERSION = 4
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_T = TypeVar("_T")
Fit: TypeAlias = tuple[int, int]  # rank of a match (lower is better), and the number of its best text

# Kinds of texts by relevance. Tags are in the library, not in the index.
KINDS = ("title", "author", "tag", "row", "year", "idea", "problem", "result", "abstract", "note", "pdf")
_PDF = KINDS.index("pdf")
_ENOUGH = 1000  # matches of one or two letters in names and titles; with more, texts are not searched
_LISTED = KINDS.index("abstract")  # kinds before this one come from the list
_IN_TITLE = 4  # ranks of names and titles are 0 (a whole name) to 4 (inside a word)
_NAME, _NAME_STARTS, _WHOLE, _STARTS, _INSIDE = ((rank, 0) for rank in range(_IN_TITLE + 1))
_SUBJECT, _KIND, _PART = 1 << 24, 1 << 20, (1 << 20) - 1  # a row number: subject, kind, page or part
_KEPT = 50  # number of words whose matches are cached until the index changes

_TABLES = """
CREATE TABLE seen (unit TEXT PRIMARY KEY, stamp TEXT);
CREATE TABLE subjects (number INTEGER PRIMARY KEY, subject TEXT UNIQUE);
CREATE VIRTUAL TABLE texts USING fts5(body, tokenize='unicode61 remove_diacritics 2', prefix='1 2 3');
CREATE VIRTUAL TABLE pages USING fts5(body, tokenize='unicode61 remove_diacritics 2', prefix='3');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(texts, row);
"""


class FullText:
    """One index. Its methods are thread-safe."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._in_memory = False
        self._mended = False
        self._lock = threading.RLock()
        self._reading_pdfs = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._subjects: dict[int, str] = {}
        self._kept: dict[tuple[str, bool], dict[str, Fit]] = {}
        self._kept_heads: dict[str, dict[str, Fit]] = {}
        self._catalog: Catalog | None = None  # the indexed list
        self._list: Unit | None = None
        self._words: Counter[str] = Counter()  # of names and titles
        self._data_version = 0
        self._heads: dict[str, Head] = {}
        self.places: dict[str, int] = {}  # of the list's subjects, then of the papers that no row names
        self.ready = False  # if False, the next search checks the files again

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    # Filling

    def refresh(self, library: Library, *, progress: Callable[[str], None] = lambda unit: None) -> None:
        """Read changed files, PDFs last; `progress` is called before each PDF."""
        from readtrack.fulltext.units import pdfs

        self._read_texts(library)
        with self._reading_pdfs:  # one refresh at a time, because a second would read the same files
            wanted = {unit.name: unit for unit in pdfs(library)}
            self._forget_others(wanted, "unit LIKE 'pdf:%'")
            for unit in self._changed(wanted):
                progress(unit.name)
                texts = list(unit.texts())  # slow, and searches must not wait for it
                self._guarded(partial(self._put, read=[(unit, texts)]))

    def settle(self, library: Library) -> None:
        """Update the index to `library`: its list, abstracts and notes. Fast if nothing changed."""
        with self._lock:
            if (
                not self.ready
                or self._catalog is not library.catalog
                or self._version() != self._data_version
            ):
                self._read_texts(library)

    def _read_texts(self, library: Library) -> None:
        from readtrack.fulltext.units import abstracts_and_notes, heads, listed

        with self._lock:
            self.ready, self._kept = False, {}
            while not self.ready:  # not ready if the file had to be rebuilt in the meantime
                self.ready = True
                if self._catalog is not library.catalog:
                    self._catalog = library.catalog
                    self._list, self._heads = listed(self._catalog), heads(self._catalog)
                    self._kept_heads = {}
                    self.places = {subject: place for place, subject in enumerate(self._heads)}
                    # Count now, because counting at the first misspelling would delay a key press.
                    self._words = Counter(
                        word for head in self._heads.values() for word in head.words.split()
                    )
                units = (self._list, *abstracts_and_notes(library))
                wanted = {unit.name: unit for unit in units if unit is not None}
                self._forget_others(wanted, "unit NOT LIKE 'pdf:%'")
                # In one transaction, because there may be thousands.
                changed = [(unit, unit.texts()) for unit in self._changed(wanted)]
                self._guarded(partial(self._put, read=changed))
            self._data_version = self._version()

    def _version(self) -> int:
        """A number that changes when another process changes the file."""
        return int(self._rows("PRAGMA data_version")[0][0])

    def _changed(self, wanted: dict[str, Unit]) -> list[Unit]:
        seen = dict(self._rows("SELECT unit, stamp FROM seen"))
        return [unit for unit in wanted.values() if seen.get(unit.name) != unit.stamp]

    def _forget_others(self, wanted: dict[str, Unit], of: str) -> None:
        gone = [name for (name,) in self._rows(f"SELECT unit FROM seen WHERE {of}") if name not in wanted]
        if gone:
            self._guarded(partial(self._forget, units=gone))

    def _forget(self, db: sqlite3.Connection, units: Iterable[str]) -> None:
        self._kept = {}
        for name in units:
            kind, _, subject = name.partition(":")
            if kind == "list":
                db.execute(f"DELETE FROM texts WHERE (rowid / {_KIND}) % 16 < {_LISTED}")
            else:
                first = self._number(db, subject) * _SUBJECT + KINDS.index(kind) * _KIND
                table = "pages" if kind == "pdf" else "texts"
                db.execute(f"DELETE FROM {table} WHERE rowid BETWEEN ? AND ?", (first, first + _PART))
            db.execute("DELETE FROM seen WHERE unit = ?", (name,))

    def _put(self, db: sqlite3.Connection, read: Sequence[tuple[Unit, Iterable[Text]]]) -> None:
        numbers = dict(db.execute("SELECT subject, number FROM subjects"))
        for unit, texts in read:
            self._forget(db, [unit.name])
            parts: dict[tuple[str, str], int] = {}
            rows = []
            for subject, kind, page, body in texts:
                if subject not in numbers:
                    numbers[subject] = self._number(db, subject)
                part = parts[subject, kind] = page or parts.get((subject, kind), 0) + 1
                number = numbers[subject] * _SUBJECT + KINDS.index(kind) * _KIND + min(part, _PART)
                rows.append((number, body))
            table = "pages" if unit.name.startswith("pdf:") else "texts"
            db.executemany(f"INSERT OR REPLACE INTO {table} (rowid, body) VALUES (?, ?)", rows)
            db.execute("INSERT INTO seen VALUES (?, ?)", (unit.name, unit.stamp))
        self._subjects = {number: subject for subject, number in numbers.items()}

    @staticmethod
    def _number(db: sqlite3.Connection, subject: str) -> int:
        db.execute("INSERT OR IGNORE INTO subjects (subject) VALUES (?)", (subject,))
        (number,) = db.execute("SELECT number FROM subjects WHERE subject = ?", (subject,)).fetchone()
        return int(number)

    # Querying

    @property
    def everything(self) -> Collection[str]:
        """The list's subjects in order, then the papers that no row names."""
        return self._heads.keys()

    def fits(self, text: str, *, phrase: bool = False) -> dict[str, Fit]:
        """The subjects with words that start with this text, or with names or titles that contain it.

        A phrase must match exactly. Words of one or two letters that very many names and titles contain are
        not searched elsewhere.
        """
        with self._lock:
            if len(self._kept) > _KEPT:
                self._kept = {}
            if (text, phrase) not in self._kept:
                found = self.heads(text, phrase=phrase)
                short = len(text) < 3
                if (
                    short and len(found) > _ENOUGH
                ):  # two letters that occur in that many titles are not selective
                    tables: tuple[str, ...] = ()
                else:
                    tables = ("texts",) if short else ("texts", "pages")
                for table in tables:
                    first = self._first_in(table, _match(text, phrase=phrase))
                    found = {
                        subject: (_IN_TITLE + kind_of(number), number) for subject, number in first.items()
                    } | found
                self._kept[text, phrase] = found
            return self._kept[text, phrase]

    def _first_in(self, table: str, match: str) -> dict[str, int]:
        """The number of the best text of each subject with a match, among the list's subjects."""
        # One row, because Python would take longer to fetch thousands of rows than SQLite takes to find them.
        ((joined,),) = self._rows(f"SELECT group_concat(rowid) FROM {table} WHERE {table} MATCH ?", (match,))
        numbers = sorted(map(int, joined.split(",")), reverse=True) if joined else []
        first = {number // _SUBJECT: number for number in numbers}
        subjects, listed = self._subjects, self._heads
        return {
            subject: number for key, number in first.items() if (subject := subjects.get(key, "")) in listed
        }

    def heads(self, text: str, *, phrase: bool = False) -> dict[str, Fit]:
        """The subjects with this text in a name or title.

        The rank is 0 for a whole name, 1 for the beginning of a name, 2 for whole words, 3 for the beginning
        of a word, 4 inside a word.
        """
        words = worded(text)
        whole, starts = f" {words} ", f" {words}"
        if phrase:
            return {subject: _WHOLE for subject, head in self._heads.items() if whole in head.words}
        if len(self._kept_heads) > _KEPT:
            self._kept_heads = {}
        if words not in self._kept_heads:
            named = f"|{words.replace(' ', '')}"
            name, heads = f"{named}|", self._heads
            # A name that contains "mat" also contains "ma", which was typed before.
            known = (self._kept_heads.get(words[:end]) for end in range(len(words) - 1, 0, -1))
            among = next((found for found in known if found is not None), heads)
            self._kept_heads[words] = {
                subject: (_NAME if name in names else _NAME_STARTS)
                if named in names
                else (_INSIDE if starts not in body else _WHOLE if whole in body else _STARTS)
                for subject in among
                for names, body in (heads[subject],)
                if words in body or named in names
            }
        return self._kept_heads[words]

    def around(self, texts: Iterable[str], numbers: Iterable[int]) -> dict[int, str]:
        r"""The context of the matches in the texts with these numbers, with matches between \x01 and \x02."""
        wanted, numbers = list(texts), list(numbers)
        bodies: dict[int, str] = {}
        for table, is_pdf in (("texts", False), ("pages", True)):
            here = [number for number in numbers if (kind_of(number) == _PDF) == is_pdf]
            for start in range(0, len(here), 500):
                some = here[start : start + 500]
                marks = ",".join("?" * len(some))
                bodies |= dict(self._rows(f"SELECT rowid, body FROM {table} WHERE rowid IN ({marks})", some))
        return {number: around(body, wanted) for number, body in bodies.items()}

    def near(self, word: str) -> str:
        """The likeliest correct spelling of a word, from titles or else from texts other than PDFs, or "".

        The first letter must be correct.
        """
        query = "SELECT term, doc FROM vocabulary WHERE term >= ? AND term < ?"
        others = partial(self._rows, query, (word[:1], word[:1] + "\U0010ffff"))
        for terms in (self._words.items, others):
            near = [one for one in terms() if one[0][0] == word[0] and is_near(word, one[0])]
            if near:
                return str(min(near, key=lambda one: (abs(len(one[0]) - len(word)), -one[1]))[0])
        return ""

    # The file

    def _rows(self, query: str, values: Any = ()) -> list[Any]:
        return self._guarded(lambda db: db.execute(query, values).fetchall())

    def _guarded(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in a transaction.

        If the file cannot be used, retry with a new file, and then in memory; the next search fills it.
        Raises ReadtrackError if that fails, too.
        """
        with self._lock:
            while True:
                try:
                    db = self._open()
                    with db:
                        return work(db)
                except sqlite3.Error as error:
                    self.close()
                    self.ready, self._kept = False, {}
                    if self._in_memory:
                        raise ReadtrackError(f"the search index cannot be made: {error}.") from error
                    busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY
                    self._in_memory = busy or self._mended or not self._delete()

    def _delete(self) -> bool:
        self._mended = True
        try:
            for name in ("search.sqlite", "search.sqlite-journal"):
                (self._home.cache / name).unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            name = ":memory:"
            if not self._in_memory and self._home.root.is_dir():
                try:
                    name = str(self._home.ensure(self._home.cache) / "search.sqlite")
                except ReadtrackError:
                    self._in_memory = True
            self._db = self._connect(name)
            self._subjects = dict(self._db.execute("SELECT number, subject FROM subjects"))
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
        db.execute("PRAGMA synchronous = OFF")  # data lost in a crash are rebuilt
        return db


def kind_of(number: int) -> int:
    """The kind of a text, as an index of KINDS."""
    return number // _KIND % 16


def _match(text: str, *, phrase: bool) -> str:
    """An FTS5 term, quoted so that nothing in it is an operator. Except in a phrase, the end is a prefix."""
    quoted = text.replace('"', '""').replace("\0", " ")
    return f'"{quoted}"' if phrase else f'"{quoted}"*'


def around(body: str, wanted: Sequence[str], reach: int = 70) -> str:
    r"""The context of the first match of the wanted words in `body`, with the match in \x01..\x02."""
    flat = body.casefold()
    if len(flat) == len(body):  # the fast path, for words without accents
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
