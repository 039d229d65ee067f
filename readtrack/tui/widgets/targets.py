"""Targets of a page's lines: the values that `LineView.Chosen` brings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Web(NamedTuple):
    """A web address."""

    url: str


class File(NamedTuple):
    """A file on this machine, for the program that shows it."""

    path: Path


class Subject(NamedTuple):
    """A paper or row of the checklist."""

    subject: str


class PastRun(NamedTuple):
    """A run of this paper, over or still alive."""

    run_id: str


class NoteTarget(NamedTuple):
    """The reader's own notes."""

    subject: str
