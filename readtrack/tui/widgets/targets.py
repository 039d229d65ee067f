"""Targets of a page's lines, which `LineView.Chosen` carries."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Web(NamedTuple):
    """A web address."""

    url: str


class File(NamedTuple):
    """A file on this machine, to be opened by the desktop."""

    path: Path


class Subject(NamedTuple):
    """A paper or row of the checklist."""

    subject: str


class PastRun(NamedTuple):
    """A past or live run."""

    run_id: str


class NoteTarget(NamedTuple):
    """The reader's own notes."""

    subject: str
