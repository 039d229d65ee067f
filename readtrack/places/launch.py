"""Start a run here or elsewhere, and find a run that is still in progress."""

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
    """Start the job at its place, or here where it names none. The run records its code's
    hashes, and how it differs from what ships.

    Raises ReadtrackError if it cannot be started, the place is not known, or its paper does not exist.
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
    """A process for a run that is alive, here or elsewhere; else None.

    Raises ReadtrackError for a run elsewhere whose place is not the reader's.
    """
    return process.attach(folder) if (folder / ELSEWHERE).exists() else launcher.attach(folder)
