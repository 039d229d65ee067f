"""Exercises and their verdicts in words, for both front ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from readtrack.present.marks import Mark, Tone
from readtrack.text import counted, format_duration, one_line, plain

if TYPE_CHECKING:
    from readtrack.practice.diary import PracticeStanding
    from readtrack.practice.sheet import Sheet
    from readtrack.runs.events import ExerciseJudged

OUTCOMES: dict[str, Mark] = {
    "passed": Mark("✓", "good"),
    "wrong": Mark("✗", "bad"),
    "failed": Mark("!", "bad"),
    "slow": Mark("⧖", "bad"),
    "empty": Mark("○", "quiet"),
    "running": Mark("…", "doubtful"),
    "skipped": Mark("⊘", "quiet"),
}
_WORDS = {
    "wrong": "another result",
    "failed": "an error",
    "slow": "does not end",
    "empty": "not written yet",
}


class PracticeLine(NamedTuple):
    """A line to print, in a tone of `readtrack.present.marks`; "plain" for none."""

    text: str
    tone: Tone | str = "plain"


def standing(number: int, sheet: Sheet, found: PracticeStanding, width: int) -> PracticeLine:
    """`✓ 1 weights   3 tries, 12 min, 1 hint`."""
    outcome = "passed" if found.passed else "skipped" if found.skipped else "empty"
    spent = format_duration(found.seconds) if found.seconds >= 1 else ""
    facts = (
        counted(found.tries, "try").replace("trys", "tries") if found.tries else "",
        spent,
        counted(found.hints, "hint") if found.hints else "",
        "solution seen" if found.solution else "",
        "skipped" if found.skipped else "",
    )
    mark = OUTCOMES[outcome]
    said = ", ".join(filter(None, facts)) or sheet.task
    return PracticeLine(f"{mark.sign} {number} {sheet.name:<{width}}  {said}".rstrip(), mark.tone)


def verdict(number: int, event: ExerciseJudged, width: int) -> PracticeLine:
    """`✗ 2 split heads  another result, line 33`."""
    mark = OUTCOMES.get(event["outcome"], OUTCOMES["failed"])
    compared = event.get("compared", 0)
    said = (
        f"{counted(compared, 'set')} of inputs"
        if event["outcome"] == "passed"
        else _WORDS.get(event["outcome"], "")
    )
    if event["outcome"] in ("wrong", "failed", "slow") and event.get("line"):
        said += f", line {event['line']}"
    return PracticeLine(
        f"{mark.sign} {number} {one_line(event['name']):<{width}}  {said}".rstrip(), mark.tone
    )


def details(event: ExerciseJudged) -> Iterator[PracticeLine]:
    """The first failing input, expected and found; then what the mistake may be."""
    for line in event.get("report", ()):
        yield PracticeLine(f"    {plain(line)}")
    for sentence in one_line(event.get("hint", "")).split(". "):
        if sentence:
            yield PracticeLine(f"    {sentence[0].upper()}{sentence[1:].removesuffix('.')}.", "doubtful")


def summary(outcomes: Iterable[str]) -> str:
    """`2 of 4 pass`."""
    found = list(outcomes)
    passed = found.count("passed")
    return f"all {len(found)} pass" if passed == len(found) else f"{passed} of {len(found)} pass"
