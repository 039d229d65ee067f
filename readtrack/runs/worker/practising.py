"""A run of the reader's exercises: each judged, or theirs in the paper's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.practice.sheet import exercises_of
from readtrack.runs.job import ANSWERS

if TYPE_CHECKING:
    from readtrack.practice.session import Session
    from readtrack.runs.events import EventWriter
    from readtrack.runs.job import Job


def session(job: Job, folder: Path) -> Session:
    """The reader's file, as it was when the run began, next to the loaded plugin. Raises ReadtrackError."""
    from readtrack.practice.session import Session

    home = Home()
    found = exercises_of(job.paper, find(home))
    known = [sheet.name for sheet in found]
    if missing := [name for name in job.practice if name not in known]:
        raise ReadtrackError(f"{job.paper} has no exercise {', '.join(missing)}.")
    return Session(found, folder / ANSWERS, str(home.practice / f"{job.paper}.py"))


def judge_all(opened: Session, job: Job, events: EventWriter, check_stopped: Callable[[], None]) -> None:
    """Emit the verdict of each exercise."""
    for index, name in enumerate(job.practice):
        check_stopped()
        events.emit("progress", label=name, done=index, total=len(job.practice), eta=None)
        for verdict in opened.verdicts([name]):
            events.emit("exercise", **asdict(verdict))
