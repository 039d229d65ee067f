"""Merges two homes: journal, bets and practice log line by line, notes, runs and files by name, lists by
their rows and papers.

Nothing in this home is replaced. In a conflict, this home's version stays, the other's is kept next to it,
and the conflict is reported. Merging again changes nothing. The other home is untrusted (`foreign`).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from readtrack import regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Paper
from readtrack.reading_list.journal import parse
from readtrack.runs.store import load as load_run
from readtrack.text import counted
from readtrack.transfer import importing, lists
from readtrack.transfer.foreign import Survey, is_code, limit, survey

Kind = Literal["journal", "list", "note", "run", "file"]

_SINGLE = ("note-template.md", "places.yaml")
_FOLDERS = ("metadata", "pdfs", "imported", "set-aside", "plugins", "practice")
_PRACTISED = "practice/log.jsonl"
_BETWEEN = b"\n\n<!-- from another home -->\n\n"
_EVENTS = "events.jsonl"


@dataclass(frozen=True, slots=True)
class Step:
    """A merged item, a conflict or an omitted item, described by `what`."""

    kind: Kind
    name: str
    what: str
    conflict: bool = False


@dataclass(slots=True)
class Merge:
    """The result of a merge. left_out: omitted files, with reasons."""

    steps: list[Step] = field(default_factory=list)
    left_out: list[Step] = field(default_factory=list)

    @property
    def conflicts(self) -> list[Step]:
        return [step for step in self.steps if step.conflict]

    def note(self, kind: Kind, name: str, what: str, *, conflict: bool = False) -> None:
        self.steps.append(Step(kind, name, what, conflict))


@dataclass(slots=True)
class _Pair:
    """Both homes, and the merge's state and results so far."""

    home: Home
    other: Home
    there: Survey
    done: Merge
    write: bool

    def theirs(self, name: str) -> bytes:
        """A file of the other home. Raises OSError."""
        return regular.read_bytes(self.other.root / name, limit(name) or 0)


def merge(home: Home, other: Home, *, write: bool = True, code: bool = False) -> Merge:
    """Add everything that `other` has and `home` lacks. If `write` is false, only report it.

    code  also take plugins and places.yaml, which contain or name programs

    Raises ReadtrackError if something cannot be read or written; everything written until then is valid.
    """
    if not other.root.is_dir():
        raise ReadtrackError(f"there is no folder {other.root}. Name the home of another machine.")
    if other.root.resolve() == home.root.resolve():
        raise ReadtrackError("the two homes are the same folder.")
    done = Merge()
    try:
        there = survey(other.root)
        done.left_out = [Step("file", name, why) for name, why in there.left_out.items()]
        if not code:
            done.left_out += [Step("file", name, "it names programs to run") for name in there.code]
            there.files = {name: size for name, size in there.files.items() if not is_code(name)}
        pair = _Pair(home, other, there, done, write)
        with home.holding("merge"):
            for step in (_list, _logs, _notes, _runs, _files):
                step(pair)
    except OSError as error:
        raise ReadtrackError(f"could not merge {other.root}: {error}.") from error
    return done


def _logs(pair: _Pair) -> None:
    """Merge files that consist of lines. This home's lines come first."""
    _lines(pair, "journal.jsonl", "journal", parse)
    _lines(pair, "bets.jsonl", "bets", json.loads)
    _lines(pair, _PRACTISED, "practice", json.loads)


def _lines(pair: _Pair, name: str, lock: str, read: Callable[[bytes], object]) -> None:
    """Append the other home's missing lines.

    read  raises ValueError or RecursionError for an invalid line
    """
    if name not in pair.there.files:
        return
    path = pair.home.root / name
    with pair.home.holding(lock):
        there = path.read_bytes() if path.exists() else b""
        ours = set(there.split(b"\n"))
        new, bad = [], 0
        for line in dict.fromkeys(pair.theirs(name).split(b"\n")):
            if not line.strip() or line in ours:
                continue
            try:
                read(line)
            except (ValueError, RecursionError):
                bad += 1
            else:
                new.append(line)
        if new and pair.write:
            pair.home.ensure(path.parent)
            with path.open("ab") as file:
                file.write((b"\n" if there and not there.endswith(b"\n") else b"") + b"\n".join(new) + b"\n")
                file.flush()
                os.fsync(file.fileno())
    if new:
        pair.done.note("journal", name, counted(len(new), "line"))
    if bad:
        pair.done.note("journal", name, f"{bad} invalid lines were left out", conflict=True)


def _notes(pair: _Pair) -> None:
    """Merge notes as bytes, so that line endings and encodings are kept."""
    home = pair.home
    with home.holding("notes"):
        for name in pair.there.under("notes"):
            mine = home.root / name
            theirs, ours = pair.theirs(name), mine.read_bytes() if mine.is_file() else b""
            if not name.endswith(".md") or theirs.strip() in ours:
                continue
            if ours.strip() in theirs:
                pair.done.note("note", mine.stem, "longer there" if ours else "new")
                united = theirs
            else:
                pair.done.note(
                    "note", mine.stem, "differs: both texts were kept, theirs below", conflict=True
                )
                united = ours.rstrip() + _BETWEEN + theirs.strip() + b"\n"
            if pair.write:
                home.ensure(mine.parent)
                with replacing(mine.resolve() if mine.is_symlink() else mine) as part:
                    part.write_bytes(united)


def _runs(pair: _Pair) -> None:
    """Merge runs that have ended, as whole folders. An unfinished local copy of such a run is completed."""
    names: dict[str, list[str]] = {}
    for name in pair.there.under("runs"):
        names.setdefault(name.split("/")[1], []).append(name)
    for run, files in names.items():
        target = pair.home.runs / run
        if target.exists() and not _is_longer(pair, run):
            continue
        if load_run(pair.other.runs / run).outcome is None:
            why = "it is unfinished there: open readtrack there once, then merge again"
            pair.done.left_out.append(Step("run", run, why))
            continue
        pair.done.note("run", run, "new" if not target.exists() else "longer there")
        if pair.write:
            _take_run(pair, target, files)


def _is_longer(pair: _Pair, run: str) -> bool:
    """Whether the local run has no end and the other home's copy continues it."""
    name = f"runs/{run}/{_EVENTS}"
    if name not in pair.there.files:
        return False
    try:
        ours = regular.read_bytes(pair.home.root / name, limit(name) or 0)
        return (
            b'"event":"end"' not in ours.replace(b" ", b"")[-4096:]
            and pair.there.files[name] > len(ours)
            and pair.theirs(name).startswith(ours)
        )
    except OSError:
        return False


def _take_run(pair: _Pair, target: Path, files: list[str]) -> None:
    pair.home.ensure(pair.home.runs)
    part = pair.home.runs / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        part.mkdir()
        for name in files:
            copy = part / Path(name).relative_to(f"runs/{target.name}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(pair.theirs(name))
        for own in ("note.md", "pinned"):
            if (target / own).exists():
                shutil.copyfile(target / own, part / own)
        if target.exists():
            shutil.rmtree(target)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _files(pair: _Pair) -> None:
    names = [name for name in _SINGLE if name in pair.there.files]
    for name in names + [name for folder in _FOLDERS for name in pair.there.under(folder)]:
        if name == _PRACTISED:
            continue
        target = pair.home.root / name
        if target.exists():
            # Fetched files differ from day to day; the reader's own files do not.
            fetched = name.startswith(("metadata/", "pdfs/"))
            if not fetched and target.is_file() and target.read_bytes() != pair.theirs(name):
                pair.done.note("file", name, "differs: this home's version is kept", conflict=True)
            continue
        pair.done.note("file", name, "new")
        if pair.write:
            pair.home.ensure(target.parent)
            with replacing(target) as part:
                part.write_bytes(pair.theirs(name))


def _list(pair: _Pair) -> None:
    home, done = pair.home, pair.done
    if "papers.yaml" not in pair.there.files:
        return
    if not home.papers_yaml.exists():
        done.note("list", "papers.yaml", "new")
        if pair.write:
            home.ensure()
            with replacing(home.papers_yaml) as part:
                part.write_bytes(pair.theirs("papers.yaml"))
        return
    try:
        theirs = load.load(pair.other.papers_yaml)
    except ReadtrackError as error:
        done.note("list", "papers.yaml", f"was left out because it cannot be read: {error}", conflict=True)
        return
    library = Library.open(home, home.papers_yaml)
    made = importing.plan_list(library, theirs)
    for paper in made.additions.papers:
        done.note("list", paper.id, "new paper")
    ours = library.catalog.papers
    for id_, paper in theirs.papers.items():
        if id_ in ours and _facts(paper) != _facts(ours[id_]):
            done.note("list", id_, "its facts differ: this list's are kept", conflict=True)
    rows = [one for one in made.found if one.status != "listed"]
    for one in rows:
        done.note("list", one.text, "new row")
    if pair.write and made.additions:
        before = home.papers_yaml.read_bytes()
        lists.write(home, home.papers_yaml, before, lists.extended(before.decode("utf-8"), made.additions))


def _facts(paper: Paper) -> tuple[object, ...]:
    return (paper.title, paper.authors, paper.year, paper.sources)
