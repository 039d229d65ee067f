"""Reports the outcome of a bet after its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from readtrack import bets
from readtrack.errors import ReadtrackError
from readtrack.present import bets as present
from readtrack.tui.theme import tone_style

if TYPE_CHECKING:
    from readtrack.runs.record import Record
    from readtrack.tui.shell import Shell


def told(shell: Shell, record: Record) -> list[tuple[str, str]]:
    """The outcome of the bet on this ended run, as text for the status line."""
    try:
        decided = bets.BetBook(shell.library.home).settle([record.summary()])
    except ReadtrackError as error:
        shell.fail("record the outcome of your bet", error, "`readtrack bets` tries again.")
        return []
    lines = [present.decided(bet) for bet in decided]
    return [(f"{line.text}   ", tone_style(line.tone)) for line in lines]
