"""Draws a run's claims: rules of the claims that are not judged yet, and verdicts of the others."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from readtrack.bench.judge import Growth, Speedup
from readtrack.claims import Bound
from readtrack.present.actions import key
from readtrack.present.claims import Baseline, StatedClaim, failed, stated
from readtrack.present.marks import PENDING
from readtrack.runs.record import Record
from readtrack.tui.theme import verdict_mark
from readtrack.tui.widgets.line_view import BLANK, EMPTY, Line, heading, join, labelled, wrapped
from readtrack.tui.widgets.paper_page import hanging


def verdict_marks(record: Record) -> list[Content]:
    """A part such as `✓ name` for each judged claim."""
    judged = [one for one in stated(record) if one.judged]
    signs = [verdict_mark(one.shown_verdict, control=_is_control(record)) for one in judged]
    return [join((f"{sign} {one.name}", style)) for one, (sign, style) in zip(judged, signs, strict=True)]


def _is_control(record: Record) -> bool:
    return record.job is not None and record.job.control


def short(record: Record, width: int) -> list[Line]:
    """The claims for the overview, each with its numbers, or with its rule if it is not judged yet."""
    lines: list[Line] = []
    for one in stated(record):
        lines += ([BLANK] if lines else [heading("Claims")]) + _head(one, width, control=_is_control(record))
        if one.verdict == PENDING:
            lines += labelled("rule", one.rule, width, "$muted")
            continue
        lines += labelled("why", one.why, width, "$muted")
        lines += labelled("ours", one.decisive, width)
        lines += labelled("paper", one.paper, width, "$muted")
    return lines


def page(record: Record, width: int, beside: Baseline | None = None) -> list[Line]:
    """The claims in full: the paper's figure, our numbers and the rule. For a run without the idea, also the
    outcome with the idea (`beside`).
    """
    found = stated(record)
    if not found:
        waiting = record.outcome is None
        words = "Claims and their rules appear here." if waiting else "This run has no claims."
        return wrapped(words, width, "$muted", indent=1)
    condition = record.job.condition if record.job is not None else ""
    lines = _condition(record, found, condition, width, beside) if condition else []
    for one in found:
        with_it = _with_the_idea(one, record, beside) if condition and beside else EMPTY
        head = _head(one, width, with_it, control=_is_control(record))
        lines += ([BLANK] if lines else []) + head + _body(one, width)
    return lines


def _condition(
    record: Record, found: list[StatedClaim], condition: str, width: int, beside: Baseline | None
) -> list[Line]:
    """Lines on how this run differs from a plain run, and on the reference for its claims."""
    broken, edited = (record.job.broken, record.job.edited) if record.job is not None else ("", "")
    named = (one for claim in found if claim.claim is not None for one in claim.claim.breaks)
    takes_away = next((one.takes_away for one in named if one.name == broken), "")
    diff = f"   {key('run_edits')} shows the edits" if edited else ""
    how = join(
        (condition, "bold $reading"),
        "  ",
        (takes_away, ""),
        (diff, "$muted"),
    )
    lines = wrapped(how, width, indent=1)
    if beside is None or not beside.verdicts:
        words = f"There is no plain run to compare with yet. Press {key('run')} to start one."
        return lines + wrapped(words, width, "$muted", indent=1)
    return lines + wrapped(f"Next to each claim: {beside.source}.", width, "$muted", indent=1)


def _with_the_idea(one: StatedClaim, record: Record, beside: Baseline) -> Content:
    """The outcome with the idea, such as `plain run ✓ held   ✓ it failed`. The second part says whether the
    claim failed, if the claim names this break.
    """
    verdict = beside.verdicts.get(one.name)
    if verdict is None:
        return EMPTY
    sign, style = verdict_mark(verdict)
    told = join((f"   {beside.label} ", "$muted"), (f"{sign} {verdict}", style))
    fate = failed(one, record.job, beside)
    if not fate:
        return told
    good = record.job is not None and record.job.control and fate == "it failed"
    sign, style = verdict_mark("held" if good else "missed")
    return join(told, (f"   {sign} {fate}", f"bold {style}"))


def _head(one: StatedClaim, width: int, more: Content = EMPTY, *, control: bool) -> list[Line]:
    sign, style = verdict_mark(one.shown_verdict, control=control)
    note = "" if one.kind == "measured" else f"  {one.kind}"
    words = join(
        (f"{sign} {one.shown_verdict}", f"bold {style}"), "  ", (one.name, ""), (note, "$muted"), more
    )
    return hanging(words, width)


def _body(one: StatedClaim, width: int) -> list[Line]:
    claim = one.claim
    if claim is None:
        return wrapped("(written by another version of readtrack)", width, "$muted", indent=3)
    open_ = one.verdict in (PENDING, "not judged")

    def bounds(label: str, found: Iterable[Bound | Speedup | Growth]) -> list[Line]:
        lines: list[Line] = []
        for bound in found:
            if open_ and bound.metric not in one.values:
                rule = join(verdict_mark(one.verdict), " ", (str(bound), ""))
            else:
                holds = bound.holds(bound.value(one.values, one.at_least))
                ours = f"   (ours {one.shown(bound.metric)})"
                rule = join(
                    verdict_mark("held" if holds else "missed"), " ", (str(bound), ""), (ours, "$muted")
                )
            lines += labelled("" if lines else label, rule, width)
        return lines

    def others(label: str, found: Iterable[str], style: str = "$muted") -> list[Line]:
        lines: list[Line] = []
        for words in found:
            lines += labelled("" if lines else label, words, width, style)
        return lines

    stop = "." if ". " in claim.control and not claim.control.endswith(".") else ""
    shown = {bound.metric for bound in (*claim.rule, *claim.guards, *claim.conditions)}
    more = one.values.keys() - shown - set(claim.shortcuts)
    return [
        *wrapped(claim.sentence, width, indent=3),
        *labelled("why", one.why, width, "$reading"),
        *(labelled("ours", one.ours, width) if more else []),
        *labelled("paper", one.paper, width),
        *bounds("rule", claim.rule),
        *bounds("guard", claim.guards),
        *labelled("control", f"{claim.control}{stop}", width, "$muted"),
        *bounds("reaches", claim.conditions),
        *others("shortcut", (f"{name} {one.shown(name)}" for name in claim.shortcuts if name in one.values)),
        *others("breaks", (f"{entry.name}: {entry.takes_away}" for entry in claim.breaks)),
        *others("rival", claim.rival_variants),
        *others("edge", (f"best at the edge of the grid: {edge}" for edge in one.edges), "$reading"),
        *labelled("differs", claim.deviations, width, "$muted"),
    ]
