"""Uniting two homes: journals by their lines, notes, runs and files by name, lists by their rows and papers.

Nothing here is ever replaced. Where both homes say something else, this one's word stays, the other's is kept
beside it, and the conflict is named. Merging again changes nothing.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import Literal

from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing, write_text
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Paper
from readtrack.reading_list.journal import parse
from readtrack.transfer import importing, lists

Kind = Literal["journal", "list", "note", "run", "file"]

_FOLDERS = ("metadata", "pdfs", "plugins", "imported")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that comes over (or is in conflict): `what` says it in a few words."""

    kind: Kind
    name: str
    what: str
    conflict: bool = False


@dataclass(slots=True)
class Merge:
    steps: list[Step] = field(default_factory=list)

    @property
    def conflicts(self) -> list[Step]:
        return [step for step in self.steps if step.conflict]

    def note(self, kind: Kind, name: str, what: str, *, conflict: bool = False) -> None:
        self.steps.append(Step(kind, name, what, conflict))


def merge(home: Home, other: Home, *, write: bool = True) -> Merge:
    """Bring what `other` has and `home` lacks; with `write` off, only say what that is.

    Raises ReadtrackError if something cannot be read or written; what was written by then is whole.
    """
    if not other.root.is_dir():
        raise ReadtrackError(f"there is no folder {other.root}; name the home of another machine.")
    if other.root.resolve() == home.root.resolve():
        raise ReadtrackError("that is this home itself.")
    done = Merge()
    try:
        _list(home, other, done, write)
        _journal(home, other, done, write)
        _notes(home, other, done, write)
        _runs(home, other, done, write)
        for folder in _FOLDERS:
            _files(home, other, folder, done, write)
    except OSError as error:
        raise ReadtrackError(f"could not merge {other.root}: {error}.") from error
    return done


def _journal(home: Home, other: Home, done: Merge, write: bool) -> None:
    theirs = other.journal.read_bytes().split(b"\n") if other.journal.exists() else []
    with home.lock("journal"):
        there = home.journal.read_bytes() if home.journal.exists() else b""
        ours = set(there.split(b"\n"))
        new, bad = [], 0
        for line in dict.fromkeys(theirs):
            if not line.strip() or line in ours:
                continue
            try:
                parse(line)
            except ValueError:
                bad += 1
            else:
                new.append(line)
        if new and write:
            home.ensure()
            with home.journal.open("ab") as file:
                file.write((b"\n" if there and not there.endswith(b"\n") else b"") + b"\n".join(new) + b"\n")
                file.flush()
                os.fsync(file.fileno())
    if new:
        done.note("journal", "journal.jsonl", f"{len(new)} lines")
    if bad:
        done.note("journal", "journal.jsonl", f"{bad} lines are no entries and stay behind", conflict=True)


def _notes(home: Home, other: Home, done: Merge, write: bool) -> None:
    for path in sorted(other.notes.glob("*.md")):
        mine, theirs = home.notes / path.name, path.read_text(encoding="utf-8", errors="replace")
        ours = mine.read_text(encoding="utf-8", errors="replace") if mine.exists() else ""
        if theirs.strip() in ours:
            continue
        if ours.strip() in theirs:
            done.note("note", path.stem, "longer there" if ours else "new")
            united = theirs
        else:
            done.note("note", path.stem, "differs: both texts are in it, theirs below", conflict=True)
            united = f"{ours.rstrip()}\n\n<!-- from another home -->\n\n{theirs.strip()}\n"
        if write:
            home.ensure(home.notes)
            write_text(mine, united)


def _runs(home: Home, other: Home, done: Merge, write: bool) -> None:
    for folder in sorted(path for path in other.runs.glob("*") if path.is_dir()):
        target = home.runs / folder.name
        if target.exists() or folder.name.startswith("."):
            continue
        done.note("run", folder.name, "new")
        if write:
            home.ensure(home.runs)
            part = home.runs / f".{folder.name}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(folder, part, symlinks=True)
            part.replace(target)


def _files(home: Home, other: Home, folder: str, done: Merge, write: bool) -> None:
    for path in sorted((other.root / folder).rglob("*")):
        name = path.relative_to(other.root)
        if (
            not path.is_file()
            or path.is_symlink()
            or any(part.startswith((".", "__")) for part in name.parts)
        ):
            continue
        target = home.root / name
        if target.exists():
            # What was fetched differs by the day; what the reader wrote does not.
            if folder in ("plugins", "imported") and target.read_bytes() != path.read_bytes():
                done.note("file", name.as_posix(), "differs: this home's stays", conflict=True)
            continue
        done.note("file", name.as_posix(), "new")
        if write:
            home.ensure(target.parent)
            with replacing(target) as part:
                shutil.copyfile(path, part)


def _list(home: Home, other: Home, done: Merge, write: bool) -> None:
    if not other.papers_yaml.exists():
        return
    theirs = load.load(other.papers_yaml)
    if not home.papers_yaml.exists():
        done.note("list", "papers.yaml", "new")
        if write:
            home.ensure()
            write_text(home.papers_yaml, other.papers_yaml.read_text(encoding="utf-8"))
        return
    library = Library.open(home, home.papers_yaml)
    made = importing.plan_list(library, theirs)
    for paper in made.additions.papers:
        done.note("list", paper.id, "new paper")
    ours = library.catalog.papers
    for id_, paper in theirs.papers.items():
        if id_ in ours and _facts(paper) != _facts(ours[id_]):
            done.note("list", id_, "its facts differ: this list's stay", conflict=True)
    rows = [one for one in made.found if one.status != "listed"]
    for one in rows:
        done.note("list", one.text, "new row")
    if write and made.additions:
        before = home.papers_yaml.read_bytes()
        lists.write(home, home.papers_yaml, before, lists.extended(before.decode("utf-8"), made.additions))


def _facts(paper: Paper) -> tuple[object, ...]:
    return (paper.title, paper.authors, paper.year, paper.sources)
