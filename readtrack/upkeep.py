"""Problems of a home, file by file, each with its repair. None of the user's data is
deleted: unusable files go into `set-aside/`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from readtrack.errors import ReadtrackError
from readtrack.fulltext import pdf, pdf_child
from readtrack.home import Home, replacing
from readtrack.library import Library
from readtrack.reading_list.journal import latest_plausible, parse
from readtrack.reading_list.rows import PREFIX
from readtrack.runs.store import summaries
from readtrack.text import one_line, quoted


@dataclass(frozen=True, slots=True)
class HomeProblem:
    """A problem with its repair. `fix` describes `mend`; without `mend`, what the reader can do."""

    topic: str
    text: str
    fix: str
    mend: Callable[[], object] | None = None


def findings(library: Library) -> Iterator[HomeProblem]:
    """The problems of all files in the home."""
    home = library.home
    yield from _journal(home)
    yield from _orphans(library)
    yield from _notes(library)
    yield from _metadata(library)
    yield from _pdfs(library)
    yield from _runs(home)
    yield from _leftovers(home)
    yield from _index(home)


def _journal(home: Home) -> Iterator[HomeProblem]:
    try:
        lines = home.journal.read_bytes().split(b"\n")
    except OSError:
        return
    bad, ahead, limit = [], [], latest_plausible()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                if parse(line)["at"] > limit:
                    ahead.append(number)
            except ValueError:
                bad.append(number)
    if ahead:
        text = f"{home.journal.name} has lines dated in the future: {_some(ahead)}"
        fix = "they are read in file order; correct the dates if you know them"
        yield HomeProblem("clock", text, fix)
    if bad:
        text = f"{len(bad)} invalid lines: {_some(bad)}"
        yield HomeProblem("journal", text, "moved to set-aside/journal.jsonl", lambda: _mend_journal(home))


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def _mend_journal(home: Home) -> None:
    with home.lock("journal"):
        good, bad = [], []
        for line in home.journal.read_bytes().split(b"\n"):
            if line.strip():
                try:
                    parse(line)
                    good.append(line)
                except ValueError:
                    bad.append(line)
        folder = home.ensure(home.root / "set-aside")
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(b"".join(line + b"\n" for line in bad))
            file.flush()
            os.fsync(file.fileno())
        with replacing(home.journal.resolve()) as part:  # preserves a link to a file elsewhere
            part.write_bytes(b"".join(line + b"\n" for line in good))


def _orphans(library: Library) -> Iterator[HomeProblem]:
    for name, reading in library.orphans.items():
        row = reading.about.text if reading.about else name.removeprefix(PREFIX)
        said = f"state {reading.state}" if reading.state else "a note"
        near = _nearest_row(library, row)
        fix = f"restore the row's text, or run `readtrack adopt {name} ROW`"
        if near:
            fix = f"if {quoted(near[1])} is the same row: readtrack adopt {name} {near[0]}"
        yield HomeProblem(
            "rows", f"{quoted(row)} ({said}) is no longer on the list, or its text has changed", fix
        )


def _nearest_row(library: Library, text: str) -> tuple[str, str] | None:
    from difflib import get_close_matches

    rows = {one_line(library.wording(subject)): subject for subject in library.bare_rows()}
    close = get_close_matches(one_line(text), rows, n=1, cutoff=0.5)
    return (rows[close[0]], close[0]) if close else None


def _notes(library: Library) -> Iterator[HomeProblem]:
    home = library.home
    known = {path.name for path in library.noted().values()}
    orphans = {f"{name.replace(':', '-')}.md" for name in library.orphans}
    for path in sorted(home.notes.glob("*")):
        if path.name.startswith("."):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            yield HomeProblem("notes", f"{path}: {one_line(str(error))}", "convert it to UTF-8 in an editor")
            continue
        if path.suffix == ".md" and path.name not in known | orphans:
            fix = f"rename it in {home.notes} to its paper's id (see `readtrack list`)"
            yield HomeProblem("notes", f"{path.name} belongs to no paper on the list", fix)
        elif not text.strip():
            mend = _remove(path)
            yield HomeProblem("notes", f"{path.name} is empty", "deleted", mend)


def _metadata(library: Library) -> Iterator[HomeProblem]:
    home = library.home
    for path in sorted(home.metadata.glob("*.json")):
        try:
            whole = isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
        except (OSError, ValueError, RecursionError):
            whole = False
        if not whole:
            text = f"{path.name} is damaged"
            yield HomeProblem(
                "metadata", text, "moved to set-aside; the next sync fetches it again", _aside(home, path)
            )


def _pdfs(library: Library) -> Iterator[HomeProblem]:
    home = library.home
    for path in sorted(home.pdfs.glob("*.pdf")):
        if path.name.startswith("."):
            continue
        if path.stem not in library.catalog.papers:
            fix = f"readtrack attach PAPER {path}, or delete it"
            yield HomeProblem("pdfs", f"{path.name} belongs to no paper on the list", fix)
        else:
            yield from _unreadable(home, path)


def _unreadable(home: Home, path: Path) -> Iterator[HomeProblem]:
    try:
        pdf.page_count(home, path)
    except pdf.UnreadableError as error:
        if error.reason == pdf_child.DAMAGED:
            fix = "moved to set-aside; the next sync fetches it again"
            yield HomeProblem("pdfs", f"{path.name} is damaged", fix, _aside(home, path))
        else:
            fix = f"its text cannot be searched; another copy may help: readtrack attach {path.stem} FILE"
            yield HomeProblem("pdfs", f"{path.name} {error.reason}", fix)


def _runs(home: Home) -> Iterator[HomeProblem]:
    problems: list[str] = []
    summaries(home, report=problems.append)
    for problem in problems:
        yield HomeProblem(
            "runs", problem, "the rest of the run is shown; delete its folder if you don't need it"
        )
    for folder in sorted(home.runs.glob("*")):
        if folder.is_symlink():
            yield HomeProblem(
                "runs", f"{folder.name} is a symbolic link and is ignored", "copy the folder itself there"
            )
        elif folder.is_dir() and not folder.name.startswith(".") and not (folder / "job.json").is_file():
            yield HomeProblem("runs", f"{folder.name} has no job.json", "set aside", _aside(home, folder))


def _leftovers(home: Home) -> Iterator[HomeProblem]:
    """Temporary files of processes that were killed at least an hour ago."""
    import time

    for path in sorted(home.root.rglob(".*.part")):
        # A folder is a download that can be resumed.
        if path.is_file() and time.time() - path.lstat().st_mtime > 3600:
            name = path.relative_to(home.root)
            yield HomeProblem(
                "files", f"{name} was left by a process that was killed", "deleted", _remove(path)
            )


def _index(home: Home) -> Iterator[HomeProblem]:
    path = home.cache / "search.sqlite"
    if not path.exists():
        return
    try:
        with sqlite3.connect(path, timeout=2) as db:
            said = db.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        text = f"the search index is damaged: {one_line(said)}"
        yield HomeProblem("search", text, "deleted; the next search rebuilds it", _remove(path))


def _aside(home: Home, path: Path) -> Callable[[], object]:
    return lambda: home.set_aside(path)


def _remove(path: Path) -> Callable[[], None]:
    return lambda: path.unlink(missing_ok=True)


def adopt(library: Library, name: str, subject: str) -> str:
    """Transfer an orphan's state, tags, rating and note to a row, and return a description.

    Raises ReadtrackError if there is no such orphan, or nothing to transfer.
    """
    reading = library.orphans.get(name)
    if reading is None:
        raise ReadtrackError(f"{quoted(name)} is not an orphaned row; `readtrack doctor` lists those.")
    given: list[str] = []
    if reading.state is not None:
        library.mark(subject, reading.state)
        given.append(reading.state)
    for tag in sorted(reading.tags):
        library.tag(subject, tag)
        given.append(f"#{tag}")
    if reading.rating is not None:
        library.rate(subject, reading.rating)
        given.append(f"{reading.rating}/5")
    path = library.home.notes / f"{name.replace(':', '-')}.md"
    if path.is_file():
        library.add_to_note(subject, path.read_text(encoding="utf-8", errors="replace"))
        if path != library.note_path(subject):
            library.home.set_aside(path)
        given.append("its note")
    library.disown(name)
    return ", ".join(given) or "nothing"
