"""A run of the reader's exercises: judge each one, or run with them in place of the paper's functions."""

from __future__ import annotations

import faulthandler
import math
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


_GRACE = (
    2.0  # seconds after its deadline in which an exercise can still be stopped and its line number reported
)


def session(job: Job, folder: Path) -> Session:
    """The reader's file as of the run's start, with the loaded plugin. Raises ReadtrackError."""
    from readtrack.practice.session import Session

    home = Home()
    found = exercises_of(job.paper, find(home))
    known = [sheet.name for sheet in found]
    if missing := [name for name in job.practice if name not in known]:
        raise ReadtrackError(f"{job.paper} has no exercise {', '.join(missing)}.")
    with _processor_limit():
        return Session(found, folder / ANSWERS, str(home.practice / f"{job.paper}.py"))


def judge_all(opened: Session, job: Job, events: EventWriter, check_stopped: Callable[[], None]) -> None:
    """Emit the verdict of each exercise."""
    for index, name in enumerate(job.practice):
        check_stopped()
        events.emit("progress", label=name, done=index, total=len(job.practice), eta=None)
        with _processor_limit():
            for verdict in opened.verdicts([name]):
                events.emit("exercise", **asdict(verdict))


@contextmanager
def _processor_limit() -> Iterator[None]:
    """Limit this process's CPU time to slightly more than an exercise may take.

    The exercise's own deadline needs the interpreter, which a loop inside a C function never releases.
    """
    from readtrack.practice.session import SECONDS

    faulthandler.register(signal.SIGXCPU, chain=True)  # the log gets the line number
    before = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(time.process_time() + SECONDS + _GRACE)
    least = min(one for one in (limit, *before) if one != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_CPU, (least, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)
