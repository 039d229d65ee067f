"""Texts for bets, for both front ends: a bet when placed and when decided, and the calibration curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from readtrack.bets import Bet, Calibration, Stake, by_topic, calibration
from readtrack.present.marks import Tone
from readtrack.text import counted

if TYPE_CHECKING:
    from readtrack.bets import SureBin

_BAR = 20  # columns of a bin's bar


class BetLine(NamedTuple):
    """A line with a tone of `readtrack.present.marks`, or "plain"."""

    text: str
    tone: Tone | str = "plain"


def question(paper: str, on: Stake) -> str:
    return f"{paper}, {on.claim}: which arm wins?"


def options(on: Stake) -> list[tuple[str, str]]:
    """Each arm, and the condition under which it wins."""
    control = f". The control: {on.described}" if on.described else ""
    return [(on.ours, f"the claim holds: {on.rule}"), (on.control, f"the claim does not hold{control}")]


def placed(bet: Bet) -> str:
    """`Bet: 8 heads wins, 80 %.`"""
    return f"Bet: {bet.arm} wins, {bet.sure} %."


def decided(bet: Bet) -> BetLine:
    """`Your bet, 8 heads at 80 %: right.`"""
    words = f"Your bet, {bet.arm} at {bet.sure} %"
    if not bet.counts:
        return BetLine(f"{words}: does not count ({bet.void}).", "quiet")
    return BetLine(f"{words}: {'right' if bet.right else 'wrong'}.", "good" if bet.right else "bad")


def nothing(paper: str) -> str:
    return f"{paper} has no measured claim to bet on."


def state(bet: Bet) -> str:
    """`right`, `wrong`, `open`, or why it does not count."""
    return "open" if bet.open else ("right" if bet.right else "wrong") if bet.counts else bet.void


def withdrawn(bet: Bet) -> str:
    return f"The bet on {bet.arm} is withdrawn."


def page(bets: Sequence[Bet], width: int) -> Iterator[BetLine]:
    """The calibration curve and the Brier score of all bets and of each topic. If there are too few bets, the
    lines say how many are missing.
    """
    total = calibration(bets)
    waiting = sum(bet.open for bet in bets)
    yield BetLine("Bets" + (f"   {counted(waiting, 'open bet')}" if waiting else ""), "heading")
    if total.missing:
        yield BetLine(missing(total), "quiet")
        return
    yield BetLine("  stated    right; ┆ marks the stated confidence", "quiet")
    for part in total.bins:
        yield BetLine(curve(part))
    yield BetLine(f"Brier score {total.brier:.3f}: 0 is perfect, always stating 50 % gives 0.250.")
    topics = by_topic(bets)
    room = max([12, *(len(one.topic) for one in topics)])
    room = min(room, max(12, width - 44))
    for one in topics:
        name = one.topic or "not on the list"
        name = name if len(name) <= room else f"{name[: room - 1]}…"
        if one.missing:
            yield BetLine(f"{name:<{room}}  {missing(one)}", "quiet")
        else:
            told = f"stated {one.said:.0f} %, right {100 * one.right:.0f} %, Brier {one.brier:.3f}"
            yield BetLine(f"{name:<{room}}  {counted(one.bets, 'bet')}: {told}")
            yield from (BetLine(curve(part)) for part in one.bins)


def missing(one: Calibration) -> str:
    """`3 decided bets; 7 more until there is a calibration curve`."""
    return f"{counted(one.bets, 'decided bet')}; {one.missing} more until there is a calibration curve"


def curve(one: SureBin) -> str:
    """`  70–79 %   ██████████┆███······  8 of 11 right (73 %)`."""
    share = one.right / one.bets
    filled, at = round(_BAR * share), min(_BAR - 1, round(_BAR * one.said / 100))
    bar = "".join("┆" if i == at else "█" if i < filled else "·" for i in range(_BAR))
    return f"  {one.least}–{one.most} %  {bar}  {one.right} of {one.bets} right ({100 * share:.0f} %)"


def document(bets: Sequence[Bet]) -> dict[str, object]:
    """All bets and their calibration, for programs."""
    return {
        "bets": [asdict(bet) | {"state": state(bet)} for bet in bets],
        "calibration": [_figures(one) for one in (calibration(bets), *by_topic(bets))],
    }


def _figures(one: Calibration) -> dict[str, object]:
    facts: dict[str, object] = {"topic": one.topic or None, "bets": one.bets, "missing": one.missing}
    if one.missing:
        return facts
    curve = [part._asdict() for part in one.bins]
    return facts | {"brier": one.brier, "right": one.right, "said": one.said / 100, "curve": curve}
