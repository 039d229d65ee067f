"""Runs in their folders: read back, ended, summed up in `result.json`, pinned, noted, deleted."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text
from readtrack.runs.events import EventReader, EventWriter, Outcome
from readtrack.runs.job import Job
from readtrack.runs.record import Record, Summary
from readtrack.text import clean, plain


def load(folder: Path) -> Record:
    """The record of a run's folder, whatever of it is there."""
    try:
        record = Record.from_job(Job(**clean(asdict(Job.read(folder)))))
        record.run_id = folder.name
    except (OSError, ValueError, TypeError):
        record = Record(run_id=folder.name, paper="")
    reader = EventReader(folder)
    for event in reader.read_new():
        record.apply(event)
    record.arrived = reader.changed() or record.arrived
    record.bad_events += reader.bad_lines
    if reader.newer_version:
        record.warnings.append("written by a newer readtrack: what it says may be incomplete here")
    return record


def write_end_event(folder: Path, outcome: Outcome, detail: str, *, elapsed: float | None = None) -> Record:
    """Write the `end` event unless the run has one, and `result.json`. Returns the whole record.

    `elapsed` is seconds since the worker started (default: the time of the last event).
    """
    record = load(folder)
    if record.outcome is None:
        events = EventWriter(
            folder,
            first_seq=record.next_seq,
            elapsed=record.duration if elapsed is None else max(elapsed, record.duration),
        )
        events.emit("end", outcome=outcome, detail=detail)
        events.close()
        record = load(folder)
    write_result(folder, record)
    return record


def write_result(folder: Path, record: Record) -> None:
    write_text(folder / "result.json", json.dumps(asdict(record.summary()), indent=2) + "\n")


def summaries(home: Home, paper: str | None = None) -> list[Summary]:
    """All runs, newest first. An ended run costs one small file; a live one is read whole."""
    found = [summary for folder in run_folders(home) if (summary := _summary(folder)) is not None]
    if paper is not None:
        found = [summary for summary in found if summary.paper == paper]
    return sorted(found, key=lambda summary: (summary.started, summary.run_id), reverse=True)


def run_folders(home: Home) -> list[Path]:
    """A name that could steer a terminal is none that a run was given here."""
    try:
        return [Path(entry) for entry in os.scandir(home.runs) if entry.is_dir() and entry.name.isprintable()]
    except OSError:
        return []


def _summary(folder: Path) -> Summary | None:
    result = read_result(folder)
    if result is not None:
        return result
    record = load(folder)
    return record.summary() if record.paper else None


def read_result(folder: Path) -> Summary | None:
    """`result.json`, or None if it is not there or broken."""
    try:
        fields = json.loads((folder / "result.json").read_bytes())
        return Summary.from_json({**fields, "run_id": folder.name})
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


# What the reader does to runs that are over

_PINNED = "pinned"
_NOTE = "note.md"


def is_pinned(folder: Path) -> bool:
    return (folder / _PINNED).exists()


def pin(folder: Path, pinned: bool) -> None:
    """A pinned run is not deleted. Raises ReadtrackError if that cannot be written down."""
    try:
        if pinned:
            (folder / _PINNED).touch()
        else:
            (folder / _PINNED).unlink(missing_ok=True)
    except OSError as error:
        raise ReadtrackError(f"Could not pin {folder.name}: {error.strerror}.") from error


def note(folder: Path) -> str:
    """What the reader wrote about a run; "" if nothing."""
    try:
        return plain((folder / _NOTE).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def save_note(folder: Path, text: str) -> None:
    """Raises ReadtrackError if it cannot be written."""
    try:
        if text.strip():
            write_text(folder / _NOTE, text.strip() + "\n")
        else:
            (folder / _NOTE).unlink(missing_ok=True)
    except OSError as error:
        raise ReadtrackError(f"Could not write the note on {folder.name}: {error.strerror}.") from error


def delete(folder: Path) -> None:
    """Take a run's folder away. Raises ReadtrackError for one that is alive or pinned."""
    if read_result(folder) is None and load(folder).outcome is None:
        raise ReadtrackError(f"{folder.name} has not ended.")
    if is_pinned(folder):
        raise ReadtrackError(f"{folder.name} is pinned.")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise ReadtrackError(f"Could not delete {folder.name}: {error.strerror}.") from error
