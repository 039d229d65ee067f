"""A run that judges exercises: the job, its verdicts, and the diary's lines about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from readtrack.practice.desk import Desk
from readtrack.runs.job import Job, new_job
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.runs.events import ExerciseJudged
    from readtrack.runs.record import Record

_SECONDS = 25.0  # for each exercise, beyond its own limit, and for all together


def job(desk: Desk, names: list[str]) -> Job:
    """Judges these exercises of the reader's file."""
    return new_job(
        desk.paper,
        device="cpu",
        budget="smoke",
        only="exercises",
        practice=names,
        timeout=60.0 + _SECONDS * len(names),
    )


def verdicts(record: Record) -> list[ExerciseJudged]:
    """The verdict on each exercise that was begun. The one at which the run ended early gets one as well."""
    found = list(record.exercises)
    if record.outcome in ("completed", "cancelled", None):
        return found
    asked = record.job.practice if record.job else []
    left = [name for name in asked if name not in {event["name"] for event in found}]
    if not left:
        return found
    detail = one_line(record.detail)
    ended: ExerciseJudged = {
        "event": "exercise",
        "name": left[0],
        "outcome": "slow" if record.outcome == "timed_out" else "failed",
        "report": [f"{record.outcome.replace('_', ' ')}: {detail}"],
        "hint": "the exercises after it were not judged" if left[1:] else "",
        "line": 0,
    }
    return [*found, ended]


def note(desk: Desk, record: Record) -> None:
    """Write the verdicts on what was written into the reader's diary. Raises ReadtrackError."""
    for event in verdicts(record):
        if event["outcome"] == "empty":
            continue
        desk.diary.add(
            desk.paper, event["name"], "tried", outcome=event["outcome"], hint=event.get("hint", "")
        )
