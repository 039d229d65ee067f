"""The signs of states, verdicts and outcomes. Each front end has its own colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from readtrack import signs
from readtrack.runs.evidence import EXACT

if TYPE_CHECKING:
    from readtrack.reading_list.journal import State

Tone = Literal["good", "doubtful", "bad", "quiet"]

PENDING = "pending"  # a claim that the run has not judged yet
RUNNABLE = "r"  # the key that runs a paper


class Mark(NamedTuple):
    sign: str
    tone: Tone


STATES: dict[State, str] = {
    "todo": signs.TODO,
    "reading": signs.READING,
    "read": signs.READ,
    "implemented": signs.IMPLEMENTED,
    "skipped": signs.SKIPPED,
}

# In the order of `runs.evidence.WORST_FIRST`.
VERDICTS: dict[str, Mark] = {
    "not reproduced": Mark(signs.FAILED, "bad"),
    "missed": Mark(signs.FAILED, "bad"),
    "inconclusive": Mark("?", "doubtful"),
    "weak": Mark(signs.UNSURE, "doubtful"),
    "not specific": Mark(signs.EQUAL, "doubtful"),
    "held": Mark(signs.PASSED, "good"),
    "reproduced": Mark(signs.PASSED, "good"),
    "not judged": Mark(signs.NOTHING, "quiet"),
    EXACT: Mark(signs.EXACT, "quiet"),
    PENDING: Mark(signs.PENDING, "quiet"),
}

OUTCOMES = {
    "completed": signs.PASSED,
    "failed": signs.ERROR,
    "cancelled": signs.STOPPED,
    "timed_out": signs.QUEUED,
    "out_of_memory": signs.OUT_OF_MEMORY,
    "crashed": signs.ERROR,
    "interrupted": signs.STOPPED,
}


def verdict(word: str) -> Mark:
    """The mark of a verdict; unknown words (from another version of readtrack) count as not judged."""
    return VERDICTS.get(word, VERDICTS["not judged"])
