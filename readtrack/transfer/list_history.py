"""Undoing changes of the list: rows that were added, linked or removed.

The journal undoes states, tags and ratings. `undo` and `redo` take whichever of the two was changed last. The
texts of the list before and after its last changes are in the cache, for the app and the command line alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text
from readtrack.library import Library
from readtrack.transfer.lists import write

_KEPT = 10  # changes


class ListChange(NamedTuple):
    """One change of the list at `path`.

    said            such as "GPT-2 removed from the list"
    before, after   the list's text; None: there was no file
    since, until    the journal's last change before and after: a link may move states to a paper
    """

    said: str
    path: str
    before: str | None
    after: str | None
    since: str
    until: str


class Undone(NamedTuple):
    """What was undone or redone, and whether the list was changed by it."""

    said: str
    of_list: bool


@contextmanager
def recorded(library: Library, said: str) -> Iterator[None]:
    """Record the change of the list that the block makes, so that `undo` takes it back."""
    path = library.catalog.path if library.is_readers else library.home.papers_yaml
    before, since = _text(path), library.last_change
    yield
    after = _text(path)
    if after != before:
        done, _ = _read(library.home)
        step = ListChange(said, str(path), before, after, since, library.last_change)
        _keep(library.home, [*done, step][-_KEPT:], [])


def undo(library: Library) -> Undone | None:
    """Take back the last change of the list or the journal; None if there is none.

    Raises ReadtrackError if the list was changed by something else since, or cannot be written.
    """
    done, undone = _read(library.home)
    if not done or done[-1].until != library.last_change:
        said = library.undo()
        return Undone(said, False) if said else None
    *done, step = done
    _keep(library.home, done, [])  # whatever becomes of it, the next undo is for the change before
    _replace(library.home, step, step.after, step.before)
    if step.since != step.until:
        library.undo()
    library.reload()
    _keep(library.home, done, [*undone, step])
    return Undone(f"Undone: {step.said}.", True)


def redo(library: Library) -> Undone | None:
    """Make the change again that the last undo took back; None if there is none. Raises as `undo`."""
    done, undone = _read(library.home)
    if not undone or undone[-1].since != library.last_change:
        said = library.redo()
        return Undone(said, False) if said else None
    *undone, step = undone
    _keep(library.home, done, undone)
    _replace(library.home, step, step.before, step.after)
    if step.since != step.until:
        library.redo()
    library.reload()
    # A change that is redone in the journal has the id that it had.
    _keep(library.home, [*done, step], undone)
    return Undone(f"Redone: {step.said}.", True)


def _replace(home: Home, step: ListChange, old: str | None, new: str | None) -> None:
    """Write `new` to the list, which has to be `old` still."""
    path = Path(step.path)
    if _text(path) != old:
        raise ReadtrackError(f"{path.name} was changed since, so this stays: {step.said}.")
    if new is not None:
        write(home, path, None if old is None else old.encode("utf-8"), new)
    else:  # the list that ships takes its place again
        with home.holding("papers"):
            path.unlink()


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ReadtrackError(f"could not read {path}: {error}.") from error


def _file(home: Home) -> Path:
    return home.cache / "list-history.json"


def _read(home: Home) -> tuple[list[ListChange], list[ListChange]]:
    """The changes that can be undone and redone; none if the file is not there or damaged."""
    try:
        document = json.loads(_file(home).read_text(encoding="utf-8"))
        done, undone = ([ListChange(*fields) for fields in document[name]] for name in ("done", "undone"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return [], []
    return done, undone


def _keep(home: Home, done: list[ListChange], undone: list[ListChange]) -> None:
    home.ensure(home.cache)
    document = json.dumps({"done": done, "undone": undone}, ensure_ascii=False)
    try:
        write_text(_file(home), document)
    except OSError as error:
        raise ReadtrackError(f"could not write {_file(home)}: {error.strerror}.") from error
