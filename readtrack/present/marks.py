"""Signs of one column for states, verdicts and outcomes, the same on every screen.

Every sign has a shape of its own: nobody has to tell colours apart. Each front end has its own colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from readtrack.reading_list.journal import State

Tone = Literal["good", "doubtful", "bad", "quiet"]

PENDING = "pending"  # a claim that the run has not come to yet
RUNNABLE = "r"  # the key that runs it
FOLDED = "▸"


class Mark(NamedTuple):
    sign: str
    tone: Tone


STATES: dict[State, str] = {"todo": "○", "reading": "◐", "read": "●", "implemented": "◆", "skipped": "⊘"}

# In the order of `runs.evidence.WORST_FIRST`.
VERDICTS: dict[str, Mark] = {
    "not reproduced": Mark("✗", "bad"),
    "missed": Mark("✗", "bad"),
    "inconclusive": Mark("?", "doubtful"),
    "weak": Mark("≈", "doubtful"),
    "not specific": Mark("=", "doubtful"),
    "held": Mark("✓", "good"),
    "reproduced": Mark("✓", "good"),
    "not judged": Mark("·", "quiet"),
    PENDING: Mark("…", "quiet"),
}

OUTCOMES = {
    "completed": "✓",
    "failed": "!",
    "cancelled": "■",
    "timed_out": "⧖",
    "out_of_memory": "▲",
    "crashed": "!",
    "interrupted": "■",
}


def verdict(word: str) -> Mark:
    """A word that is not in the table (of another version of readtrack) says nothing."""
    return VERDICTS.get(word, VERDICTS["not judged"])
