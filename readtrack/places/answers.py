"""Validation of an agent's answers: the sender may be compromised, or may run different software.

Every function raises Refused with a message for the reader.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

from readtrack import __version__
from readtrack.places.agent import CHUNK
from readtrack.places.errors import Refused
from readtrack.places.folders import is_id
from readtrack.text import one_line, quoted

MAX_LINE = 8 << 20  # size limit of an answer's JSON
MAX_DATA = 2 * CHUNK  # size limit of its payload

_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "hello": {
        "readtrack": str,
        "python": str,
        "torch": bool,
        "submitit": bool,
        "host": str,
        "clock": (int, float),
        "free": int,
        "root": str,
    },
    "has": {"has": bool},
    "read": {"frames": list},
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A report on one run.

    It has the run's attempt, the offset of the `n` bytes received, whether a shepherd is alive (None:
    unknown), and the scheduler's state.
    """

    attempt: str
    at: int
    n: int
    alive: bool | None
    why: str


def parse(line: bytes) -> tuple[dict[str, Any], int]:
    """An answer's fields, and the length of its payload."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise _strange("it is not a JSON object")
    count = said.pop("n", None)
    if not _is_count(count) or count > MAX_DATA:
        raise _strange(f"the payload length n is {quoted(str(count))}")
    return said, count


def check(do: str, said: dict[str, Any]) -> dict[str, Any]:
    """The answer, if it has the required fields. Raises Refused for an invalid answer or an error."""
    if "error" in said:
        raise Refused(one_line(str(said["error"]))[:1000])
    if do == "hello" and said.get("readtrack") != __version__:
        theirs = one_line(str(said.get("readtrack")))[:40]
        raise Refused(
            f"the other side runs readtrack {theirs}, and this side {__version__}. Install the same version."
        )
    for key, kind in _FIELDS.get(do, {}).items():
        if not isinstance(said.get(key), kind):
            raise _strange(f"{key} is {quoted(str(said.get(key)))}")
    return said


def frames(said: dict[str, Any], runs: Container[str], received: int) -> Iterator[tuple[str, Frame]]:
    """The frames of an answer to `read`. `runs` are the runs in the request."""
    for one in said["frames"]:
        if not isinstance(one, dict):
            raise _strange("a frame is not an object")
        fields: list[Any] = [one.get(name) for name in Frame.__slots__]
        run_id, frame = one.get("run"), Frame(*fields)
        if not (isinstance(run_id, str) and run_id in runs and _is_frame(frame) and frame.n <= received):
            raise _strange(f"its report on run {quoted(str(run_id))} is {quoted(str(frame))}")
        received -= frame.n
        yield run_id, frame


def _is_frame(frame: Frame) -> bool:
    return (
        isinstance(frame.attempt, str)
        and (not frame.attempt or is_id(frame.attempt))
        and _is_count(frame.at)
        and _is_count(frame.n)
        and (frame.alive is None or isinstance(frame.alive, bool))
        and isinstance(frame.why, str)
    )


def files(said: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Names and sizes of the files to fetch: the log and the artifacts."""
    found = said.get("files", {})
    if not isinstance(found, dict) or not all(map(_is_count, found.values())):
        raise _strange("`files` does not map names to sizes")
    return ((name, size) for name, size in found.items() if _comes_home(name))


def _comes_home(name: str) -> bool:
    first, *rest = name.split("/")
    if first == "artifacts" and rest:
        # No "..", no hidden files, and no path separators of other systems.
        return all(part and part[0] != "." and part.isprintable() and "\\" not in part for part in rest)
    return name == "log.txt"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _strange(what: str) -> Refused:
    return Refused(f"invalid answer: {what}. Check that both sides run the same version of readtrack.")
