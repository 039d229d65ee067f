"""Start a run here or remotely, and attach to a run in progress."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from readtrack.library import Library
from readtrack.places import code, place, process
from readtrack.plugins import edits, prints
from readtrack.runs import launcher
from readtrack.runs.job import ELSEWHERE, Job
from readtrack.runs.launcher import Running


def start(job: Job, library: Library) -> Running:
    """Start the job at its place, or here if it names none.

    Records the hashes of the code, and its differences from the shipped code. Raises ReadtrackError if the
    job cannot be started, the place is unknown, or the paper does not exist.
    """
    plugins = library.runnable()
    builds_on = {paper.id: paper.builds_on for paper in library.catalog.papers.values()}
    found = edits.of_paper(job.paper, plugins, builds_on)
    job = replace(job, edited=edits.summary(job.paper, found))
    running: Running
    if job.place:
        there = place.find(library.home, job.place)
        running = process.start(job, library.home, there, code.pack(job.paper, plugins, builds_on))
    else:
        running = launcher.start(job, library.home)
    with suppress(OSError):  # the disk is full: the run continues, and its summary names the files
        edits.save(running.folder, found)
        prints.save(running.folder, prints.of_paper(job.paper, plugins, builds_on))
    return running


def attach(folder: Path) -> Running | None:
    """A handle for a live run, here or remote, or None.

    Raises ReadtrackError for a remote run whose place is not in the reader's places.yaml.
    """
    return process.attach(folder) if (folder / ELSEWHERE).exists() else launcher.attach(folder)
