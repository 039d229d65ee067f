"""Textual messages that the app sends to its screens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from readtrack.runs.record import Record


class ReadingChanged(Message):
    """A state, tags, a rating or a note changed."""


@dataclass
class PapersChanged(Message):
    """Abstracts or PDFs of these papers may have arrived."""

    papers: Collection[str]


class ResultsChanged(Message):
    """`RunController.results` changed."""


@dataclass
class RunChanged(Message):
    """The run in progress has new events."""

    record: Record
    folder: Path


@dataclass
class PracticeChanged(Message):
    """A check of this paper's exercises began, made progress or ended."""

    paper: str


class QueueChanged(Message):
    """A run started or ended, or the queue changed."""


@dataclass
class RowReturned(Message):
    """An undone or redone change put the row with this key back on the list."""

    key: str


class SyncChanged(Message):
    """The sync made progress or ended."""
