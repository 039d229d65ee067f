"""The runs that wait for their turn, in a file of the home, so that they outlive the app."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from readtrack import regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text
from readtrack.runs.job import Job

_LARGEST = 1 << 20  # bytes


class Queue:
    """Several apps may share it: each job is taken once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._file = home.root / "queue.json"

    def jobs(self) -> list[Job]:
        """The first is next. What cannot be read is left out."""
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
        """Replace the jobs by what `change` makes of them; gives that back. Raises ReadtrackError."""
        with self._home.holding("queue"):
            jobs = change(self.jobs())
            try:
                write_text(self._file, json.dumps([asdict(job) for job in jobs], indent=1) + "\n")
            except OSError as error:
                text = f"The queue could not be written to {self._file}: {error.strerror}."
                raise ReadtrackError(text) from error
        return jobs

    def take(self) -> Job | None:
        """Take the next job out of the queue. Raises ReadtrackError."""
        taken: list[Job] = []

        def first_out(jobs: list[Job]) -> list[Job]:
            taken.extend(jobs[:1])
            return jobs[1:]

        if self.jobs():
            self.change(first_out)
        return taken[0] if taken else None


def moved(jobs: list[Job], run_id: str, step: int) -> list[Job]:
    """The jobs with one of them `step` places further down; the first and the last stay where they are."""
    at = next((index for index, job in enumerate(jobs) if job.run_id == run_id), None)
    if at is None or not 0 <= at + step < len(jobs):
        return jobs
    rest = [job for job in jobs if job.run_id != run_id]
    rest.insert(at + step, jobs[at])
    return rest


def without(jobs: list[Job], run_id: str) -> list[Job]:
    return [job for job in jobs if job.run_id != run_id]
