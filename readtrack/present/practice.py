"""Texts for exercises and their verdicts, for both front ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from readtrack import signs
from readtrack.practice.exercise import YOURS
from readtrack.present.benchmarks import VariantView, measured
from readtrack.present.claims import stated
from readtrack.present.marks import VERDICTS, Mark, Tone
from readtrack.present.marks import verdict as verdict_mark
from readtrack.present.runs import cause
from readtrack.runs.evidence import WORST_FIRST
from readtrack.text import counted, format_duration, one_line, plain

if TYPE_CHECKING:
    from pathlib import Path

    from readtrack.practice.diary import PracticeStanding
    from readtrack.practice.sheet import Sheet
    from readtrack.runs.events import ExerciseJudged
    from readtrack.runs.record import Record

BAR = 24  # columns of the progress bar
OUTCOMES: dict[str, Mark] = {
    "passed": Mark(signs.PASSED, "good"),
    "wrong": Mark(signs.FAILED, "bad"),
    "failed": Mark(signs.ERROR, "bad"),
    "slow": Mark(signs.QUEUED, "bad"),
    "empty": Mark(signs.TODO, "quiet"),
    "running": Mark(signs.PENDING, "doubtful"),
    "skipped": Mark(signs.SKIPPED, "quiet"),
}
_WORDS = {
    "wrong": "wrong result",
    "failed": "an error",
    "slow": "did not finish",
    "empty": "not written yet",
}


class PracticeLine(NamedTuple):
    """A line to print, with a tone of `readtrack.present.marks`, or "plain"."""

    text: str
    tone: Tone | str = "plain"


def mark(found: PracticeStanding) -> Mark:
    """`✓` if it passed, else the mark for a skipped exercise or of the last try, or `○`."""
    if found.passed or found.skipped:
        return OUTCOMES["passed" if found.passed else "skipped"]
    return OUTCOMES.get(found.last, OUTCOMES["empty"])


def facts(found: PracticeStanding) -> str:
    """`3 tries, 12 min, 1 hint`; "" before the first try."""
    return ", ".join(
        filter(
            None,
            (
                counted(found.tries, "try", "tries") if found.tries else "",
                format_duration(found.seconds) if found.seconds >= 1 else "",
                counted(found.hints, "hint") if found.hints else "",
                "solution seen" if found.solution else "",
                "skipped" if found.skipped else "",
            ),
        )
    )


def outcome(event: ExerciseJudged) -> str:
    """`wrong result, line 33`; `5 sets of inputs` for an exercise that passed."""
    if event["outcome"] == "passed":
        return f"{counted(event.get('compared', 0), 'set')} of inputs"
    said = _WORDS.get(event["outcome"], "")
    known = event["outcome"] != "empty" and event.get("line")
    return f"{said}, line {event['line']}" if known else said


def verdict(number: int, event: ExerciseJudged, width: int) -> PracticeLine:
    """`✗ 2 split heads  wrong result, line 33`."""
    shown = OUTCOMES.get(event["outcome"], OUTCOMES["failed"])
    return PracticeLine(
        f"{shown.sign} {number} {one_line(event['name']):<{width}}  {outcome(event)}".rstrip(), shown.tone
    )


def details(event: ExerciseJudged) -> Iterator[PracticeLine]:
    """The likely mistake, then the first failing input with the expected and the actual result.

    The mistake comes first, because a small screen may cut the rest off.
    """
    report = event.get("report", [])
    names = {
        "result",
        *re.findall(r"\w+", "".join(report[:1])),
    }  # names of arguments and results keep their case
    for sentence in one_line(event.get("hint", "")).split(". "):
        if sentence:
            first, _, rest = sentence.removesuffix(".").partition(" ")
            first = first if re.split(r"\W", first)[0] in names else first[:1].upper() + first[1:]
            yield PracticeLine(f"    {first} {rest}.", "doubtful")
    for line in report:  # columns of numbers and code, or the sentences of an error message
        numbers = event["outcome"] == "wrong" or line.startswith("line ")
        yield PracticeLine(f"    {plain(line)}", "plain" if numbers else "bad")


def summary(outcomes: Iterable[str]) -> str:
    """`2 of 4 pass`."""
    found = list(outcomes)
    passed = found.count("passed")
    if passed == len(found):
        return f"all {passed} pass" if passed > 1 else "it passes"
    return f"{passed} of {len(found)} pass"


# The reader's code in place of the paper's


class PracticeSpeed(NamedTuple):
    """The time of a variant.

    label   naive, yours, ours or strongest
    ratios  yours compared with naive and strongest
    """

    label: str
    time: str
    ratios: str = ""
    tone: Tone | str = "plain"


def speeds(record: Record) -> tuple[str, list[PracticeSpeed]]:
    """The measured point, and the times of the four variants there.

    Uses the first case and mode, at the largest size at which the reader's code was timed. Returns ("", [])
    if it was never timed.
    """
    rows = [row for row in map(measured, record.measurements) if row.nanoseconds is not None]
    own = [row for row in rows if row.role == "paper"]
    if not own:
        return "", []
    first = [row for row in own if (row.case, row.mode) == (own[0].case, own[0].mode)]
    largest = max(first, key=lambda row: sum(row.places.values()))
    same = [row for row in rows if row.point == largest.point]
    yours = min((row for row in same if row.role == "paper"), key=_time)
    ratios = [
        f"{speed.text} as fast as {name}"
        for speed, name in ((yours.naive, "naive"), (yours.strong, "strongest"))
        if speed is not None
    ]
    tone = "good" if yours.faster else "plain"
    naive = [row for row in same if row.role == "naive"]
    ours = [row for row in same if row.role == "shipped" and row.name == yours.name.removesuffix(YOURS)]
    strong = [row for row in same if row.role in ("strong", "compiled")]
    found = [
        *(PracticeSpeed("naive", min(naive, key=_time).time) for _ in naive[:1]),
        PracticeSpeed("yours", yours.time, ", ".join(ratios), tone),
        *(PracticeSpeed("ours", one.time) for one in ours[:1]),
        *(PracticeSpeed("strongest", min(strong, key=_time).time) for _ in strong[:1]),
    ]
    return yours.point, found


def at_work(record: Record) -> Iterator[PracticeLine]:
    """The run with the reader's code: its speed compared with the paper's, and the claims' outcomes."""
    where, times = speeds(record)
    if times:
        yield PracticeLine(f"Speed  {where}")
    for one in times:
        yield PracticeLine(f"  {one.label:<10}{one.time:>9}  {one.ratios}".rstrip(), one.tone)
    for claim in stated(record):
        sign, tone = verdict_mark(claim.shown_verdict)
        yield PracticeLine(f"{sign} {claim.shown_verdict}: {claim.name}", tone)
        if told := claim.why or claim.decisive:
            yield PracticeLine(f"    {told}", "quiet")


def _time(row: VariantView) -> float:
    return row.nanoseconds or 0.0


def proof_mark(record: Record | None, *, current: bool) -> Mark:
    """`○` before the run with the reader's code, `…` during it, then the claims' worst verdict.

    A run with older code does not count.
    """
    if record is None or not current:
        return OUTCOMES["empty"]
    if record.outcome is None:
        return OUTCOMES["running"]
    if record.outcome != "completed":
        return OUTCOMES["failed"]
    verdicts = {one.verdict for one in stated(record)}
    return next((VERDICTS[word] for word in WORST_FIRST if word in verdicts), OUTCOMES["passed"])


def proof_state(record: Record) -> str:
    """The phase of the run with the reader's code, or why it ended early; "" once it is complete."""
    if record.outcome is None:
        return f"{record.phase or 'starting'} …"
    return "" if record.outcome == "completed" else cause(record)


# Questions and answers


def hint(sheet: Sheet, opened: int) -> str:
    """`Hint 1 of 3: ...`, or a message that there are none."""
    if not sheet.hints:
        return f"{sheet.name} has no hints."
    return f"Hint {opened} of {len(sheet.hints)}: {sheet.hints[opened - 1]}"


def ask_solution(sheet: Sheet) -> str:
    return f"Show the paper's code for {sheet.name}?"


def ask_reset(sheet: Sheet) -> str:
    return f"Clear {sheet.name}? A copy of your file will be kept."


def ask_implemented(paper: str) -> str:
    return f"Mark {paper} as implemented?"


def chosen(sheet: Sheet) -> str:
    return f"Now {sheet.name}: {sheet.task}"


def was_reset(sheet: Sheet, kept: Path) -> str:
    return f"{sheet.name} is empty again. The previous version of your file is {kept}"


def was_skipped(sheet: Sheet) -> str:
    return f"{sheet.name} is skipped. Choose it again to resume."


ALL_DONE = "All exercises are done or skipped."
NOT_ALL_PASS = "Not all exercises pass yet."
# {key} starts the run with the reader's code
PROVES = (
    "All exercises pass. {key} runs the benchmark and tests the claims with your code in place of the "
    "paper's."
)
PROVES_LATER = (
    "When all exercises pass, {key} runs the benchmark and tests the claims with your code in place of the "
    "paper's."
)
OLDER = "Your file has changed since this run. {key} repeats the run."
QUEUED = "It runs after {paper}."
CONDITION = "practice: "  # prefix of `Job.condition` in a run with the reader's functions
ASK_PROOF = "Run the benchmark and test the claims with your code in place of the paper's?"
PROVING = "Now running your code in place of the paper's: first its speed, then the paper's claims."
