"""State that the app keeps between starts, in `cache/app.json`: the last position in each list, and whether a
new user has chosen a list.

A missing or damaged file counts as empty. If the file cannot be written, only this state is lost.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from readtrack import regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text

_LARGEST = 64 * 1024  # bytes
_LISTS = 20  # lists whose positions are kept


class ListPosition(NamedTuple):
    """A line of a list: its key and its subject ("" for a section)."""

    key: str
    subject: str


def place(home: Home, list_path: Path) -> ListPosition | None:
    """The last position in this list, None if unknown."""
    match _read(home).get("rows"):
        case dict(rows):
            match rows.get(str(list_path)):
                case [str(key), str(subject)]:
                    return ListPosition(key, subject)
    return None


def keep_place(home: Home, list_path: Path, here: ListPosition) -> None:
    kept = _read(home)
    rows = kept["rows"] if isinstance(kept.get("rows"), dict) else {}
    rows = {**{path: row for path, row in rows.items() if path != str(list_path)}, str(list_path): here}
    _write(home, {**kept, "rows": dict(list(rows.items())[-_LISTS:])})


def has_chosen(home: Home) -> bool:
    """Whether the reader has chosen between the shipped list and their own."""
    return _read(home).get("chosen") is True


def keep_chosen(home: Home) -> None:
    _write(home, {**_read(home), "chosen": True})


def _file(home: Home) -> Path:
    return home.cache / "app.json"


def _read(home: Home) -> dict[str, Any]:
    try:
        kept = json.loads(regular.read_bytes(_file(home), _LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write(home: Home, kept: dict[str, Any]) -> None:
    with suppress(OSError, ReadtrackError):  # see above
        home.ensure(home.cache)
        write_text(_file(home), json.dumps(kept))
