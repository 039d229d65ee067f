"""One-column signs with unique meanings for every screen and table, and comparison operators of bounds.

Every sign has its own shape, so that no meaning depends on colour, and an ASCII replacement in
`readtrack.present.plain_ascii`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt

PASSED, FAILED, UNSURE, EQUAL, EXACT, ERROR = "✓", "✗", "≈", "=", "≡", "!"
RUNNING, STOPPED, QUEUED, PENDING, OUT_OF_MEMORY = "▶", "■", "⧖", "…", "▲"
NOTHING, ABSENT = "·", "–"  # nothing to show yet; not available here
TODO, READING, READ, IMPLEMENTED, SKIPPED = "○", "◐", "●", "◆", "⊘"
CHOSEN, CURRENT, FOLDED, STAR = "●", "→", "▸", "★"
FETCHING = "↓"

HOLDS: Mapping[str, Callable[[float, float], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt, "==": eq}
_RELATIONS = {">=": "≥", "<=": "≤", "==": "="}


def relation(op: str) -> str:
    """The sign of a bound's operator: `≥` for ">="."""
    return _RELATIONS.get(op, op)


def stars(rating: int) -> str:
    """`★★★☆☆`."""
    return STAR * rating + "☆" * (5 - rating)
