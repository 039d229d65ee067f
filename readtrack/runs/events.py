"""The event file of a run: `events.jsonl`, appended by the worker, read by everyone else.

One JSON object per line, UTF-8, at most 256 KiB:

    {"v": 1, "seq": 7, "t": 3.21, "event": "metric", ...}

`t` is seconds since the worker started. JSON has no NaN and infinities, so a number that is not finite is
written as null, with its name in `"not_finite"` (a diverged loss is a normal event). Readers ignore events
and fields that they do not know, and refuse a newer major `v`.

The types below define the fields of each event.

A file has at most `MAX_FILE` bytes plus a few lines for the run's end. A run that emits more than `_RATE`
events per second is slowed down, so that readers keep up with it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, cast

from readtrack import regular
from readtrack.text import clean

VERSION = 1
MAX_LINE = 256 * 1024
MAX_FILE = 256 << 20
_RESERVE = 1 << 20  # bytes beyond MAX_FILE for the events in _LAST_WORDS
_LAST_WORDS = ("error", "end")
_RATE = 5000.0  # events per second, once _BURST is used up
_BURST = 20_000
_USUAL = 512  # in bytes; a longer line counts as several events
_SLICE = 4 << 20  # bytes per read
_MAX_DEPTH = 32  # nesting depth of lists and mappings; ours is six

Outcome = Literal["completed", "failed", "cancelled", "timed_out", "out_of_memory", "crashed", "interrupted"]
OUTCOMES: tuple[Outcome, ...] = (
    "completed",
    "failed",
    "cancelled",
    "timed_out",
    "out_of_memory",
    "crashed",
    "interrupted",
)


class _Stamp(TypedDict, total=False):
    """Fields that the writer adds to every event; `not_finite` lists fields that were NaN or infinite."""

    v: int
    seq: int
    t: float
    not_finite: list[str]


class Hello(_Stamp):
    """The first event. `at`: UTC, ISO 8601. `spent`: seconds taken by the runs that this one resumes."""

    event: Literal["hello"]
    run_id: str
    paper: str
    pid: int
    process_start: float
    at: str
    readtrack: str
    python: str
    host: str
    spent: float


class Phase(_Stamp):
    """The start of a phase. name: import, setup, train, evaluate, benchmark, teardown."""

    event: Literal["phase"]
    name: str


class Environment(_Stamp, total=False):
    """Emitted after torch was imported; further fields may describe the device."""

    event: Literal["environment"]
    device: str
    device_name: str
    dtype: str
    benchmark_dtype: str
    threads: int
    torch: str


class Progressed(_Stamp):
    """The progress of a loop. eta: estimated seconds left, or None."""

    event: Literal["progress"]
    label: str
    done: int
    total: int
    eta: float | None


class Metric(_Stamp):
    """A number, or None if it is not finite; a point of a curve if it has a step. arm: its name, or ""."""

    event: Literal["metric"]
    name: str
    value: float | None
    step: float | None
    arm: str


class ClaimsStated(_Stamp):
    """The claims that the run will judge, as `readtrack.claims.Claim.to_json` gives them."""

    event: Literal["claims"]
    claims: list[dict[str, Any]]


class ClaimJudged(_Stamp, total=False):
    """The verdict on a claim.

    at_least: metrics that are lower bounds; edges: arms whose best value is at the edge of its grid; vague:
    bounds with too few judged items. For a comparison also null: what a null run redraws ("pipeline",
    "items", "none"); arms: role of each row (paper, control, yardstick, reference, other); alike: pairs of
    arms that the run's break makes equal in every number.
    """

    event: Literal["claim"]
    claim: dict[str, Any]
    values: dict[str, float]
    at_least: list[str]
    verdict: str
    why: str
    edges: list[str]
    vague: list[str]
    null: str
    arms: dict[str, str]
    alike: list[str]
    ours: str
    seed: int


class ExerciseJudged(_Stamp, total=False):
    """The verdict on an exercise.

    outcome: passed, wrong, failed, empty, slow; compared: number of inputs; line: line in the reader's file;
    report: the first failing input, expected and found; hint: the likely mistake.
    """

    event: Literal["exercise"]
    name: str
    outcome: str
    compared: int
    line: int
    report: list[str]
    hint: str


class Headline(_Stamp):
    """The metric whose curve shows the paper's point."""

    event: Literal["headline"]
    metric: str


class AxesNamed(_Stamp, total=False):
    """Axis labels of a metric's curve, "" for the default."""

    event: Literal["axes"]
    metric: str
    x: str
    y: str


class Meaning(_Stamp, total=False):
    """The meaning of names, for charts.

    roles: by arm (paper, control, arm, yardstick, reference); better: by metric ("lower", "higher").
    """

    event: Literal["meaning"]
    roles: dict[str, str]
    better: dict[str, str]


class Benchmark(_Stamp):
    """Fields are documented in `readtrack.bench.measurement`."""

    event: Literal["machine", "env", "ceilings", "measurement"]


class Artifact(_Stamp, total=False):
    """A file that the run shows.

    path: relative to the run's folder; kind: image, audio, text, table; alt: description of a picture; rows,
    columns: of a grid of pictures; row_names, column_names: their names; beside: the sound to compare this
    sound with.
    """

    event: Literal["artifact"]
    name: str
    path: str
    kind: str
    caption: str
    alt: str
    rows: int
    columns: int
    row_names: list[str]
    column_names: list[str]
    beside: str


class Said(_Stamp):
    """A message from the plugin, or a warning from the worker."""

    event: Literal["log", "warning"]
    text: str


class Heartbeat(_Stamp, total=False):
    """Memory and load. rss: bytes; cpu: number of busy processors; device_memory: bytes, or None."""

    event: Literal["heartbeat"]
    rss: int
    cpu: float
    device_memory: int | None


class Error(_Stamp, total=False):
    """An error that ended the run.

    kind: usage, memory, plugin; where: file:line in the plugin; exit_code: the command's exit code (3: not
    available).
    """

    event: Literal["error"]
    kind: str
    type: str
    message: str
    phase: str
    traceback: str
    where: str | None
    exit_code: int


class End(_Stamp, total=False):
    event: Literal["end"]
    outcome: Outcome
    detail: str


Event: TypeAlias = (
    Hello
    | Phase
    | Environment
    | Progressed
    | Metric
    | ClaimsStated
    | ClaimJudged
    | ExerciseJudged
    | Headline
    | AxesNamed
    | Meaning
    | Benchmark
    | Artifact
    | Said
    | Heartbeat
    | Error
    | End
)


class EventWriter:
    """Appends events to a run's file. Thread-safe; each event is one write.

    To continue another process's file, pass the next `first_seq` and the `elapsed` seconds. `heard` is called
    with each event and its fields.

    Raises OSError if the file is not a regular file.
    """

    def __init__(self, folder: Path, *, first_seq: int = 0, elapsed: float = 0.0) -> None:
        # Close-on-exec: programs that a plugin starts cannot write here.
        self._descriptor = regular.descriptor(folder / "events.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._seq = first_seq
        self.phase = ""  # the last one emitted
        self.heard: Callable[[str, dict[str, Any]], None] = lambda event, fields: None
        self._start = time.monotonic() - elapsed
        self._paid = 0.0  # time until which the rate is used up
        self._lock = threading.Lock()
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._write(b"\n")  # the last writer ended in the middle of a line

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event. Waits if the run emits too many.

        Raises OSError if it cannot be written, or if the file has reached `MAX_FILE`.
        """
        with self._lock:
            stamp = {"v": VERSION, "seq": self._seq, "t": round(time.monotonic() - self._start, 4)}
            line = encode({**stamp, "event": event, **fields})
            if self._size + len(line) > MAX_FILE + _RESERVE * (event in _LAST_WORDS):
                raise OSError(errno.EFBIG, f"the run's events have reached the limit of {MAX_FILE >> 20} MiB")
            self._write(line)
            self._seq += 1
            if event == "phase":
                self.phase = str(fields["name"])
            wait = 0.0 if event in _LAST_WORDS else self._too_early_by(len(line))
        self.heard(event, fields)
        if wait > 0:
            time.sleep(wait)

    def _too_early_by(self, size: int) -> float:
        """Seconds by which an event of `size` bytes exceeds the rate; 0 or less if it does not."""
        now = time.monotonic()
        self._paid = max(self._paid, now - _BURST / _RATE) + max(1.0, size / _USUAL) / _RATE
        return self._paid - now

    def _write(self, line: bytes) -> None:
        while line:
            written = os.write(self._descriptor, line)
            self._size += written
            line = line[written:]

    def close(self) -> None:
        with self._lock:
            os.close(self._descriptor)


def encode(event: dict[str, Any]) -> bytes:
    """One line. Non-finite numbers become null; a line over `MAX_LINE` has its longest texts cut."""
    bad: list[str] = []
    clean = _finite(event, "", bad)
    if bad:
        clean["not_finite"] = bad
    line = json.dumps(clean, ensure_ascii=False, allow_nan=False, default=str).encode("utf-8", "replace")
    limit = 32 * 1024
    while len(line) >= MAX_LINE and limit >= 1:
        line = json.dumps(_shortened(clean, limit), ensure_ascii=False, default=str).encode(
            "utf-8", "replace"
        )
        limit //= 4
    return line + b"\n"


def _finite(value: Any, name: str, bad: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        bad.append(name)
        return None
    if isinstance(value, dict):
        return {str(k): _finite(v, f"{name}.{k}" if name else str(k), bad) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item, f"{name}.{i}", bad) for i, item in enumerate(value)]
    return value


def _shortened(value: Any, limit: int) -> Any:
    if isinstance(value, str) and len(value) > limit:
        return value[:limit] + f" … ({len(value) - limit} more characters)"
    if isinstance(value, dict):
        return {key[:256]: _shortened(item, limit) for key, item in list(value.items())[:limit]}
    if isinstance(value, list):
        return [_shortened(item, limit) for item in value[:limit]]
    return value


# Matches lines whose texts may need cleaning, so that other lines are not checked text by text.
_UNSAFE = re.compile(
    rb"\\[urbf]|\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)


class EventReader:
    """Follows an event file: `read_new` returns the events since the last call, safe to print.

    A line that is not an event (torn by a power cut, garbage) is counted in `bad_lines` and skipped. An
    unfinished last line is left for the next call. `problem` is the reason why the file, or the rest of it,
    cannot be read, or "".
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "events.jsonl"
        self._offset = 0
        self.bad_lines = 0
        self.newer_version = False
        self.problem = ""

    def read_new(self) -> list[Event]:
        """The next events, from at most 4 MiB, so that a follower can stop in between."""
        lines = self._next_lines()
        return [] if lines is None else list(self._parse(lines))

    def read_rest(self) -> Iterator[Event]:
        """All events up to the end of the file."""
        while (lines := self._next_lines()) is not None:
            yield from self._parse(lines)

    def _next_lines(self) -> bytes | None:
        """Whole lines, without the last newline, or None."""
        try:
            with regular.reader(self._path) as file:
                file.seek(self._offset)
                data = file.read(_SLICE)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = f"events.jsonl cannot be read: {error.strerror}"
            return None
        if data and self._offset >= MAX_FILE + _RESERVE:
            self.problem = f"events.jsonl is larger than {MAX_FILE >> 20} MiB: the rest is left out"
            return None
        whole, newline, _ = data.rpartition(b"\n")
        if newline:
            self._offset += len(whole) + 1
            return whole
        if len(data) < _SLICE:
            return None
        self._offset += len(data)  # longer than any line that we write
        return b"not an event"

    def changed(self) -> float:
        """Modification time of the file, 0 if there is none."""
        try:
            return self._path.stat().st_mtime
        except OSError:
            return 0.0

    def _parse(self, data: bytes) -> Iterator[Event]:
        for line in data.split(b"\n"):
            try:
                event = json.loads(line)
                nested = line.count(b"{") + line.count(b"[") > _MAX_DEPTH and _deeper(event, _MAX_DEPTH)
                named = isinstance(event["event"], str) and not nested
                newer = event.get("v", VERSION) > VERSION
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self.bad_lines += 1
                continue
            if newer:
                self.newer_version = True
            elif named:
                # Fields may be missing or malformed: `Record.apply` counts such events.
                yield cast("Event", clean(event) if _UNSAFE.search(line) else event)
            else:
                self.bad_lines += 1


def _deeper(value: Any, limit: int) -> bool:
    """Whether lists and mappings are nested more than `limit` deep."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return limit == 0 or any(_deeper(item, limit - 1) for item in value if isinstance(item, dict | list))
