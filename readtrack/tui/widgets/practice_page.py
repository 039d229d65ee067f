"""Draws the practice screen: the list of exercises, one exercise in full, and results with the reader's
code.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from textual.content import Content

from readtrack.present import practice as present
from readtrack.present.actions import key
from readtrack.present.marks import Mark
from readtrack.text import counted
from readtrack.tui.theme import tone_style
from readtrack.tui.widgets.line_view import (
    BLANK,
    LazyLine,
    Line,
    Lines,
    heading,
    join,
    labelled,
    text,
    wrapped,
)

if TYPE_CHECKING:
    from readtrack.practice.diary import PracticeStanding
    from readtrack.practice.sheet import Sheet
    from readtrack.runs.events import ExerciseJudged
    from readtrack.runs.record import Record
    from readtrack.tui.controllers.practice import PracticeDesk


_TABLE = 70  # columns that the table of measurements needs


class PracticeTarget(NamedTuple):
    """A line's target: an exercise, or "" for the results with the reader's code."""

    name: str


class Proof(NamedTuple):
    """A run with the reader's code. current: whether it used the current version of the file."""

    record: Record
    current: bool


def exercises(bench: PracticeDesk, proof: Proof | None, width: int) -> list[Line]:
    """The list of exercises: sign, number and name; below it attempts, time and hints."""
    desk = bench.desk
    found, current = desk.standings(), desk.current()
    lines: list[Line] = []
    for number, sheet in enumerate(desk.sheets, 1):
        shown = _mark(bench, sheet, found[sheet.name])
        here = "→" if current is not None and current.name == sheet.name else " "
        head = join(
            (f" {shown.sign} ", tone_style(shown.tone)), (f"{number} {sheet.name}", "bold"), f" {here}"
        )
        lines.append(Line(head.truncate(width, ellipsis=True), PracticeTarget(sheet.name)))
        if facts := present.facts(found[sheet.name]):
            lines.append(Line(text(f"     {facts}", "$muted").truncate(width, ellipsis=True)))
    sign = present.proof_mark(proof.record if proof else None, current=proof is None or proof.current)
    head = join((f" {sign.sign} ", tone_style(sign.tone)), ("speed and claims", "bold"))
    return [*lines, BLANK, Line(head, PracticeTarget(""))]


def _mark(bench: PracticeDesk, sheet: Sheet, found: PracticeStanding) -> Mark:
    """The exercise's mark, updated during a check."""
    if bench.check is not None:
        judged = {event["name"]: event["outcome"] for event in bench.check.record.exercises}
        progress = bench.check.record.progress
        if sheet.name in judged:
            return present.OUTCOMES.get(judged[sheet.name], present.OUTCOMES["failed"])
        if progress is not None and progress.label == sheet.name:
            return present.OUTCOMES["running"]
    return present.mark(found)


def head(bench: PracticeDesk, width: int, watching: bool) -> Content:
    """The heading, such as `attention  ████░░  2 of 4   checks on saving   checking …`."""
    found = bench.desk.standings().values()
    done, total = sum(one.passed is not None for one in found), len(found)
    filled = present.BAR * done // total
    return join(
        " ",
        (bench.desk.paper, "bold $heading"),
        "  ",
        ("█" * filled, "$good"),
        ("░" * (present.BAR - filled), "$muted"),
        f"  {done} of {total}",
        ("   checks on saving" if watching else f"   {key('practice_watch')} checks on saving", "$muted"),
        ("   checking …" if bench.check is not None else "", "$reading"),
    ).truncate(max(1, width), ellipsis=True)


def exercise(bench: PracticeDesk, sheet: Sheet, found: PracticeStanding, width: int) -> list[Line]:
    """One exercise: its task, opened hints, and the message of the last check."""
    number = bench.desk.sheets.index(sheet) + 1
    lines = [heading(f"{number} {sheet.name}"), *wrapped(sheet.task, width, indent=1)]
    hints = [BLANK, *_hints(sheet, found, width)]
    event = bench.verdicts.get(sheet.name)
    if event is not None and not bench.problem and bench.desk.file.exists():
        return [*lines, *_judged(event, hints, width)]
    lines += hints
    if bench.problem:
        return [*lines, BLANK, *wrapped(bench.problem, width, "$bad", indent=1)]
    if not bench.desk.file.exists():
        words = f"Press {key('practice_edit')} to write the skeleton and open it in your editor."
        return [*lines, BLANK, *wrapped(words, width, "$reading", indent=1)]
    words = "Checking …" if bench.check is not None else f"Press {key('practice_check')} to check it."
    return [*lines, BLANK, *wrapped(words, width, "$muted", indent=1)]


def _judged(event: ExerciseJudged, hints: list[Line], width: int) -> list[Line]:
    """The message of the last check, hints, and then its numbers, which may be many."""
    mark = present.OUTCOMES.get(event["outcome"], present.OUTCOMES["failed"])
    told = (f"{mark.sign} {present.outcome(event)}", tone_style(mark.tone))
    found = list(present.details(event))
    words = list(takewhile(lambda one: one.tone != "plain", found))
    numbers = _details(found[len(words) :], width)
    lines = [BLANK, Line(join(" ", told)), *_details(words, width), *hints]
    return [*lines, BLANK, *numbers] if numbers else lines


def _details(found: Iterable[present.PracticeLine], width: int) -> list[Line]:
    """The details of a check. Sentences are wrapped, and columns of numbers are cut."""
    lines: list[Line] = []
    for one in found:
        words = one.text.removeprefix("    ")
        if one.tone == "plain":
            lines.append(Line(text(f" {words}").truncate(width, ellipsis=True)))
        else:
            lines += wrapped(words, width, tone_style(one.tone), indent=1)
    return lines


def _hints(sheet: Sheet, found: PracticeStanding, width: int) -> list[Line]:
    total, opened = len(sheet.hints), min(found.hints, len(sheet.hints))
    lines: list[Line] = []
    for number in range(1, opened + 1):
        lines += wrapped(present.hint(sheet, number), width, "$muted", indent=1)
    if opened < total:
        more = f"{counted(total - opened, 'more hint')}: press {key('practice_hint')}"
        lines += wrapped(more, width, "$faint", indent=1)
    return lines


def at_work(bench: PracticeDesk, proof: Proof | None, width: int) -> Lines:
    """Results with the reader's code: its speed compared with the paper's code, and the verdicts on the
    claims.
    """
    lines: list[Line | LazyLine] = [heading("Speed and claims with your code")]
    if proof is None:
        words = present.PROVES if bench.desk.all_done else present.PROVES_LATER
        return [*lines, *wrapped(words.format(key=key("practice_prove")), width, "$muted", indent=1)]
    from readtrack.tui.widgets import bench_page, claims_page

    record = proof.record
    if not proof.current:
        lines += wrapped(present.OLDER.format(key=key("practice_prove")), width, "$reading", indent=1)
    state = present.proof_state(record)
    lines += wrapped(state, width, "$muted", indent=1) if state else []
    lines += [BLANK, *_speed(record, width)]
    claims = claims_page.short(record, width)
    lines += [BLANK, *claims] if claims else []
    if record.measurements and width >= _TABLE:
        lines += [BLANK, heading("All measurements"), *bench_page.benchmark(record, width).all()]
    elif record.measurements:
        words = (
            f"The table of measurements needs a wider window. The run shows it, too: esc, then {key('runs')}."
        )
        lines += [BLANK, *wrapped(words, width, "$muted", indent=1)]
    return lines


def _speed(record: Record, width: int) -> list[Line]:
    where, found = present.speeds(record)
    lines = [heading("Speed", where)] if found else []
    for one in found:
        time = (f"{one.time:>9}", "bold" if one.label == "yours" else "")
        lines += labelled(one.label, join(time, (f"  {one.ratios}", tone_style(one.tone))), width)
    return lines
