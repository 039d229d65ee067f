"""Runs that judge exercises: the job, its verdicts, and their entries in the diary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.practice.desk import Desk
from readtrack.runs.job import ANSWERS, Job, new_job
from readtrack.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from readtrack.runs.events import ExerciseJudged
    from readtrack.runs.record import Record

_SECONDS = 50.0  # per exercise; the exercise's own, shorter limits normally apply first
_ENDLESS = "it has not returned and could not be interrupted: it loops inside a single call"


def job(desk: Desk, names: list[str]) -> Job:
    """A job that judges these exercises of the reader's file."""
    return new_job(
        desk.paper,
        device="cpu",
        budget="smoke",
        only="exercises",
        practice=names,
        timeout=60.0 + _SECONDS * len(names),
    )


def to_judge(desk: Desk) -> list[str]:
    """The exercises that are not skipped."""
    standings = desk.standings()
    return [name for name in desk.names if not standings[name].skipped]


def codes(desk: Desk, names: Sequence[str]) -> dict[str, str]:
    """A digest of the reader's code for each exercise, for `note`."""
    return {name: desk.code(name) for name in names}


def proof(desk: Desk) -> Job:
    """A job that runs the benchmark and the experiment with the passed functions in place of the paper's."""
    standings = desk.standings()
    return new_job(desk.paper, practice=[name for name in desk.names if standings[name].passed])


def is_proof(job: Job | None, paper: str) -> bool:
    """Whether a job is a `proof` of this paper."""
    return job is not None and job.paper == paper and bool(job.practice) and job.only != "exercises"


def proven(desk: Desk, folder: Path) -> bool:
    """Whether the run in this folder used the current file."""
    return desk.is_current(folder / ANSWERS)


def explained(desk: Desk, found: Sequence[ExerciseJudged]) -> str:
    """The exercise to show in detail: the current one if it did not pass, else the first such, or ""."""
    current = desk.current()
    bad = [event["name"] for event in found if event["outcome"] not in ("passed", "empty")]
    return current.name if current is not None and current.name in bad else next(iter(bad), "")


def verdicts(record: Record) -> list[ExerciseJudged]:
    """The verdict on each exercise that was begun, including the one at which the run ended early."""
    found = list(record.exercises)
    if record.outcome in ("completed", "cancelled", None):
        return found
    asked = record.job.practice if record.job else []
    left = [name for name in asked if name not in {event["name"] for event in found}]
    if not left:
        return found
    detail = one_line(record.detail)
    place = re.search(rf"\b{re.escape(record.paper)}\.py:(\d+)", detail)
    slow = record.outcome == "timed_out"
    ended: ExerciseJudged = {
        "event": "exercise",
        "name": left[0],
        "outcome": "slow" if slow else "failed",
        "report": [_ENDLESS if slow else f"{record.outcome.replace('_', ' ')}: {detail}"],
        "hint": "the exercises after it were not judged" if left[1:] else "",
        "line": int(place[1]) if place else 0,
    }
    return [*found, ended]


def settle(desk: Desk, record: Record, written: Mapping[str, str]) -> str:
    """Record the verdicts of a check, and return the exercise to show in detail.

    Raises ReadtrackError if the check was stopped, or the reader's file cannot be loaded.
    """
    if record.outcome == "cancelled":
        raise ReadtrackError("The check was stopped.")
    if record.error is not None and record.error.get("kind") == "usage":
        raise ReadtrackError(one_line(str(record.error.get("message"))))
    note(desk, record, written)
    return explained(desk, verdicts(record))


def note(desk: Desk, record: Record, written: Mapping[str, str]) -> None:
    """Write the verdicts to the reader's diary. Raises ReadtrackError if it cannot be written.

    written  the `codes` when the check began
    """
    for event in verdicts(record):
        if event["outcome"] == "empty":
            continue
        desk.diary.add(
            desk.paper,
            event["name"],
            "tried",
            outcome=event["outcome"],
            hint=event.get("hint", ""),
            code=written.get(event["name"], ""),
        )
