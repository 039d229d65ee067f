"""The queue of waiting runs, in a file of the home, so that it outlives the app."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from readtrack import regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text
from readtrack.runs.job import Job

_LARGEST = 1 << 20  # size limit in bytes


class Queue:
    """The waiting jobs. Several apps may share a queue; each job is taken once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._file = home.root / "queue.json"

    def jobs(self) -> list[Job]:
        """The jobs in order. Unreadable ones are left out."""
        try:
            found = json.loads(regular.read_bytes(self._file, _LARGEST))
        except (OSError, ValueError, RecursionError):
            return []
        jobs = []
        for fields in found if isinstance(found, list) else []:
            try:
                jobs.append(Job.from_json(fields))
            except (TypeError, ValueError):
                continue
        return jobs

    def change(self, change: Callable[[list[Job]], list[Job]]) -> list[Job]:
        """Replace the jobs with `change(jobs)` and return the result. Raises ReadtrackError."""
        with self._home.holding("queue"):
            jobs = change(self.jobs())
            try:
                write_text(self._file, json.dumps([asdict(job) for job in jobs], indent=1) + "\n")
            except OSError as error:
                text = f"The queue could not be written to {self._file}: {error.strerror}."
                raise ReadtrackError(text) from error
        return jobs

    def take(self) -> Job | None:
        """Remove and return the next job. Raises ReadtrackError."""
        taken: list[Job] = []

        def first_out(jobs: list[Job]) -> list[Job]:
            taken.extend(jobs[:1])
            return jobs[1:]

        if self.jobs():
            self.change(first_out)
        return taken[0] if taken else None


def moved(jobs: list[Job], run_id: str, step: int) -> list[Job]:
    """The jobs with one of them moved down by `step` places. At either end nothing moves."""
    at = next((index for index, job in enumerate(jobs) if job.run_id == run_id), None)
    if at is None or not 0 <= at + step < len(jobs):
        return jobs
    rest = [job for job in jobs if job.run_id != run_id]
    rest.insert(at + step, jobs[at])
    return rest


def without(jobs: list[Job], run_id: str) -> list[Job]:
    return [job for job in jobs if job.run_id != run_id]
