"""Load, end, summarise (in `result.json`), pin, annotate and delete the folders of runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from readtrack import regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing
from readtrack.runs import checkpoints
from readtrack.runs.events import EventReader, EventWriter, Outcome
from readtrack.runs.job import Job
from readtrack.runs.record import Record, RunSummary
from readtrack.text import clean, one_line, plain

_LARGEST = 1 << 20  # size limit of a result.json or a note, in bytes


def load(folder: Path) -> Record:
    """The record of a run's folder, as far as it can be read; `problems` lists unreadable files."""
    problems = []
    try:
        record = Record.from_job(Job(**clean(asdict(Job.read(folder)))))
        record.run_id = folder.name
    except FileNotFoundError:
        record = Record(run_id=folder.name, paper="")
    except (OSError, ValueError, TypeError) as error:
        record = Record(run_id=folder.name, paper="")
        problems.append(f"job.json cannot be read: {_reason(error)}")
    reader = EventReader(folder)
    for event in reader.read_rest():
        record.apply(event)
    record.arrived = reader.changed() or record.arrived
    record.bad_events += reader.bad_lines
    record.problems = [*problems, *filter(None, [reader.problem])]
    if reader.newer_version:
        record.warnings.append("written by a newer readtrack, so its record may be incomplete here")
    result = read_result(folder)
    if result is None and os.path.lexists(folder / "result.json"):
        record.problems.append("result.json cannot be read")
    elif result is not None and record.outcome is None:
        record.outcome, record.detail = result.outcome, result.detail
    return record


def _reason(error: Exception) -> str:
    return one_line((isinstance(error, OSError) and error.strerror) or str(error))[:200]


def write_end_event(folder: Path, outcome: Outcome, detail: str, *, elapsed: float | None = None) -> Record:
    """Write the `end` event (unless the run has one) and `result.json`, and return the whole record.

    `elapsed` is seconds since the worker started (default: the time of the last event). If the run is
    on another machine or its events cannot be read, only `result.json` is written.

    Raises OSError if that cannot be written.
    """
    record = load(folder)
    if record.outcome is None:
        record.duration = record.duration if elapsed is None else max(elapsed, record.duration)
        if record.is_foreign or record.problems:
            record.outcome, record.detail = outcome, detail
        else:
            events = EventWriter(folder, first_seq=record.next_seq, elapsed=record.duration)
            events.emit("end", outcome=outcome, detail=detail)
            events.close()
            record = load(folder)
    write_result(folder, record)
    return record


def write_result(folder: Path, record: Record) -> None:
    # Replaces a link of that name instead of following it.
    with replacing(folder / "result.json") as part:
        part.write_text(json.dumps(asdict(record.summary()), indent=2) + "\n", encoding="utf-8")


def summaries(
    home: Home, paper: str | None = None, *, report: Callable[[str], None] = lambda problem: None
) -> list[RunSummary]:
    """All runs, newest first. Reads one small file per ended run, and all events of live runs.

    report  called with a message for each run whose files cannot be read
    """
    found = [summary for folder in run_folders(home) if (summary := _summary(folder, report)) is not None]
    if paper is not None:
        found = [summary for summary in found if summary.paper == paper]
    return sorted(found, key=lambda summary: (summary.started, summary.run_id), reverse=True)


def run_folders(home: Home) -> list[Path]:
    """The folders of runs, without links and names with control characters: readtrack creates neither."""
    try:
        return [
            Path(entry)
            for entry in os.scandir(home.runs)
            if entry.is_dir(follow_symlinks=False) and entry.name.isprintable()
        ]
    except OSError:
        return []


def _summary(folder: Path, report: Callable[[str], None]) -> RunSummary | None:
    result = read_result(folder)
    if result is not None and result.unmeasured is not None:
        return result
    record = load(folder)
    if record.problems:
        report(f"run {folder.name}: {'; '.join(record.problems)}")
    if result is not None:  # from an older version
        if record.problems or len(record.claims) < len(result.claims):
            return replace(result, unmeasured=())
        with suppress(OSError):
            write_result(folder, record)
    return record.summary() if record.paper else None


def read_result(folder: Path) -> RunSummary | None:
    """`result.json`, or None if it is missing or broken."""
    try:
        fields = json.loads(regular.read_bytes(folder / "result.json", _LARGEST))
        return RunSummary.from_json({**fields, "run_id": folder.name})
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


# Changes to ended runs by the reader

_PINNED = "pinned"
_NOTE = "note.md"


def is_pinned(folder: Path) -> bool:
    return os.path.lexists(folder / _PINNED)


def pin(folder: Path, pinned: bool) -> None:
    """Pin or unpin a run. A pinned run cannot be deleted. Raises ReadtrackError if writing the pin fails."""
    try:
        if pinned:
            os.close(regular.descriptor(folder / _PINNED, os.O_WRONLY | os.O_CREAT))
        else:
            (folder / _PINNED).unlink(missing_ok=True)
    except OSError as error:
        raise ReadtrackError(f"Could not pin {folder.name}: {error.strerror}.") from error


def note(folder: Path) -> str:
    """The reader's note on a run, or ""."""
    try:
        return plain(regular.read_bytes(folder / _NOTE, _LARGEST).decode("utf-8", "replace"))
    except OSError:
        return ""


def save_note(folder: Path, text: str) -> None:
    """Save the note on a run, or delete it if `text` is blank. Raises ReadtrackError if that fails."""
    try:
        if text.strip():
            with replacing(folder / _NOTE) as part:
                part.write_text(text.strip() + "\n", encoding="utf-8")
        else:
            (folder / _NOTE).unlink(missing_ok=True)
    except OSError as error:
        raise ReadtrackError(f"Could not write the note on {folder.name}: {error.strerror}.") from error


def delete(folder: Path) -> None:
    """Delete a run's folder and its checkpoints. Raises ReadtrackError if it is alive or pinned."""
    if load(folder).outcome is None:
        raise ReadtrackError(f"{folder.name} has not ended.")
    if is_pinned(folder):
        raise ReadtrackError(f"{folder.name} is pinned.")
    try:
        shutil.rmtree(checkpoints.folder(Home(folder.parents[1]), folder.name), ignore_errors=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise ReadtrackError(f"Could not delete {folder.name}: {error.strerror}.") from error
