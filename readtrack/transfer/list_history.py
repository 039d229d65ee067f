"""Undo and redo for changes to the list: imports, and rows that were added, linked or removed.

The journal undoes states, tags and ratings. `undo` and `redo` here act on the list or the journal, depending
on which was changed last. The cache stores the texts of the list and of imported files before and after
recent changes, for both the app and the command line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing, write_text
from readtrack.library import Library

_KEPT = 10  # number of recent changes that are kept
_IN_JOURNAL = (
    2  # maximum number of journal changes per list change: states of linked rows, and states from a file
)


class ListChange(NamedTuple):
    """One change to the list.

    said            its description, such as "GPT-2 removed from the list"
    texts           text before and after by file path; None if there was no file
    since, until    the journal's last change before and after
    """

    said: str
    texts: Mapping[str, tuple[str | None, str | None]]
    since: str
    until: str


class Undone(NamedTuple):
    """The description of an undo or redo, and whether it changed the list."""

    said: str
    of_list: bool


@contextmanager
def recorded(library: Library, said: str) -> Iterator[None]:
    """Record the change that the block makes to the list, so that `undo` can revert it."""
    path = library.catalog.path if library.is_readers else library.home.papers_yaml
    before, since = _texts(library.home, path), library.last_change
    yield
    after = _texts(library.home, path)
    pairs = {name: (before.get(name), after.get(name)) for name in {**before, **after}}
    texts = {name: (old, new) for name, (old, new) in pairs.items() if old != new}
    if texts:
        done, _ = _read(library.home)
        _keep(library.home, [*done, ListChange(said, texts, since, library.last_change)][-_KEPT:], [])


def undo(library: Library) -> Undone | None:
    """Undo the last change of the list or the journal; None if there is none.

    Raises ReadtrackError if another program has changed the list since, or if it cannot be written.
    """
    done, undone = _read(library.home)
    if not done or done[-1].until != library.last_change:
        said = library.undo()
        return Undone(said, False) if said else None
    *done, step = done
    _keep(library.home, done, [])  # even if this undo fails, the next one reverts an earlier change
    _replace(library, step.said, {name: (after, before) for name, (before, after) in step.texts.items()})
    for _ in range(_IN_JOURNAL):
        if library.last_change != step.since:
            library.undo()
    library.reload()
    _keep(library.home, done, [*undone, step])
    return Undone(f"Undone: {step.said}.", True)


def redo(library: Library) -> Undone | None:
    """Redo the change that the last undo reverted; None if there is none. Raises the errors of `undo`."""
    done, undone = _read(library.home)
    if not undone or undone[-1].since != library.last_change:
        said = library.redo()
        return Undone(said, False) if said else None
    *undone, step = undone
    _keep(library.home, done, undone)
    _replace(library, step.said, step.texts)
    for _ in range(_IN_JOURNAL):
        if library.last_change != step.until:
            library.redo()
    library.reload()
    # A redone change of the journal keeps its id.
    _keep(library.home, [*done, step], undone)
    return Undone(f"Redone: {step.said}.", True)


def _replace(library: Library, said: str, texts: Mapping[str, tuple[str | None, str | None]]) -> None:
    """Replace each file's first text with the second if the file still has the first. The record is read
    from the cache, so only files that `recorded` writes are accepted: the list and imported files.
    """
    home = library.home
    lists = {home.papers_yaml, *([library.catalog.path] if library.is_readers else [])}
    for path in map(Path, texts):
        if path not in lists and (path.parent != home.root / "imported" or path.is_symlink()):
            raise ReadtrackError(f"{path} is not your list or an imported file, so this stays: {said}.")
    with home.holding("papers"):
        for name, (old, _) in texts.items():
            if _text(Path(name)) != old:
                raise ReadtrackError(f"{Path(name).name} has changed since then, so this stays: {said}.")
        for name, (_, new) in texts.items():
            path = Path(name).resolve()
            try:
                if new is None:
                    path.unlink()
                else:
                    home.ensure(path.parent)
                    with replacing(path) as part:
                        part.write_bytes(new.encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise ReadtrackError(f"could not write {path}: {error.strerror}.") from error


def _texts(home: Home, path: Path) -> dict[str, str | None]:
    """The texts of the list and of the imported files."""
    imported = sorted(one for one in (home.root / "imported").glob("*") if one.is_file())
    return {str(one): _text(one) for one in (path, *imported)}


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReadtrackError(f"could not read {path}: {error}.") from error


def _file(home: Home) -> Path:
    return home.cache / "list-history.json"


def _read(home: Home) -> tuple[list[ListChange], list[ListChange]]:
    """The changes for undo and for redo; empty if the file is missing or damaged."""
    try:
        document = json.loads(_file(home).read_text(encoding="utf-8"))
        done, undone = (list(map(_change, document[name])) for name in ("done", "undone"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return [], []
    return done, undone


def _change(fields: list[Any]) -> ListChange:
    said, texts, since, until = fields
    return ListChange(said, {name: (old, new) for name, (old, new) in texts.items()}, since, until)


def _keep(home: Home, done: list[ListChange], undone: list[ListChange]) -> None:
    home.ensure(home.cache)
    document = json.dumps({"done": done, "undone": undone})
    try:
        write_text(_file(home), document)
    except OSError as error:
        raise ReadtrackError(f"could not write {_file(home)}: {error.strerror}.") from error
