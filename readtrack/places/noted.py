"""place.json: the name of the place where a run is executed, but not how to reach it.

A run folder may come from another home, so host, program and folder are always looked up in the reader's own
places.yaml. The digest prevents a run from being followed if the name now means another machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from readtrack import regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text
from readtrack.places.folders import is_id
from readtrack.places.place import Place, file, load
from readtrack.runs.job import ELSEWHERE
from readtrack.text import quoted

_LARGEST = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class Noted:
    """The content of place.json.

    place    the reader's name for the place
    machine  `Place.machine` when the run was sent
    attempt  the attempt in events.jsonl, "" before the first
    """

    place: str
    machine: str
    attempt: str = ""

    def write(self, folder: Path) -> None:
        write_text(folder / ELSEWHERE, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Noted:
        """Raises OSError or ValueError if the file cannot be used."""
        try:
            found = json.loads(regular.read_bytes(folder / ELSEWHERE, _LARGEST))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
        if isinstance(found.get("place"), dict):  # written by older versions, which stored the whole place
            found = {**found, **_from_whole_place(found["place"])}
        noted = cls(*(found.get(key, "") for key in ("place", "machine", "attempt")))
        if not all(isinstance(value, str) for value in asdict(noted).values()):
            raise ValueError("it holds something that is not text")
        if noted.attempt and not is_id(noted.attempt):
            raise ValueError(f"{quoted(noted.attempt)} is not the name of an attempt")
        return noted


def _from_whole_place(fields: dict[str, Any]) -> dict[str, Any]:
    known = {key: fields[key] for key in ("name", "kind", "host", "home", "scheduler") if key in fields}
    if not {"name", "kind"} <= known.keys() or not all(isinstance(value, str) for value in known.values()):
        raise ValueError("its place is invalid")
    return {"place": known["name"], "machine": Place(**known).machine}


def place_of(folder: Path, home: Home) -> tuple[Place, Noted]:
    """The run's place in the reader's places.yaml. Raises ReadtrackError if the run must not be followed."""
    run = quoted(folder.name)
    if folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*")):
        raise ReadtrackError(
            f"the run {run} is ignored: its folder contains a symbolic link. Remove the link first."
        )
    try:
        noted = Noted.read(folder)
    except (OSError, ValueError) as error:
        raise ReadtrackError(f"the run {run} is ignored: {ELSEWHERE} cannot be read ({error}).") from None
    place = load(home).get(noted.place)
    if place is None:
        raise ReadtrackError(
            f"the run {run} is ignored: {file(home)} has no place {quoted(noted.place)}. "
            "If the run is yours, add its place again under that name."
        )
    if noted.machine != place.machine:
        raise ReadtrackError(
            f"the run {run} is ignored: it was sent to a machine other than {quoted(place.name)} in "
            f"{file(home)}. If the run is yours, set kind, host, home and scheduler as they were."
        )
    return place, noted
