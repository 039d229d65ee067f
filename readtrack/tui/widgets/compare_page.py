"""Draws the comparison of two runs of one paper: claims, code, common charts and measurements."""

from __future__ import annotations

from collections.abc import Sequence

from readtrack.bench import compare
from readtrack.plugins.edits import Edit
from readtrack.present import chart, runs
from readtrack.present.benchmarks import measured
from readtrack.present.chart import Series
from readtrack.present.claims import StatedClaim, side_by_side
from readtrack.runs.record import Record
from readtrack.text import format_number
from readtrack.tui.theme import verdict_mark
from readtrack.tui.widgets import edits_page
from readtrack.tui.widgets.curves import drawn, legend
from readtrack.tui.widgets.line_view import BLANK, Line, heading, join, text, wrapped
from readtrack.tui.widgets.table import Cell, table

_STYLES = {"FASTER": "$good", "SLOWER": "$bad", "UNCLEAR": "$reading", "SAME": ""}


def page(a: Record, b: Record, edits: Sequence[Edit], width: int) -> list[Line]:
    """The page. `a` is the earlier run, and `edits` is the diff from its code to the code of `b`."""
    blocks = [
        _facts(a, b, width),
        _claims(a, b, width),
        [heading("Code", "from a to b"), *edits_page.page(edits, width)] if edits else [],
        _curves(a, b, width),
        _measurements(a, b, width),
    ]
    lines: list[Line] = []
    for block in blocks:
        lines += ([BLANK] if lines and block else []) + block
    return lines


def _facts(a: Record, b: Record, width: int) -> list[Line]:
    lines: list[Line] = []
    for name, record in (("a", a), ("b", b)):
        apart = record.job.condition if record.job is not None else ""
        said = join(
            (f"{name} ", "bold $link"),
            (record.run_id, "bold"),
            (f"  {apart}" if apart else "", "bold $reading"),
            f"  {runs.how(record)}",
        )
        lines += wrapped(said, width, indent=1)
    return lines


def _claims(a: Record, b: Record, width: int) -> list[Line]:
    rows: list[list[Cell]] = []
    for name, both in side_by_side(a, b).items():
        rows.append([text(name), *map(_verdict, both, (a, b)), *map(_decisive, both)])
    head = ("claim", "a", "b", "values of a", "values of b")
    return [heading("Claims"), *table(head, rows, width, indent=1)] if rows else []


def _verdict(one: StatedClaim | None, record: Record) -> Cell:
    if one is None:
        return text("–", "$muted")
    sign, style = verdict_mark(one.shown_verdict, control=record.job is not None and record.job.control)
    return text(f"{sign} {one.shown_verdict}", style)


def _decisive(one: StatedClaim | None) -> Cell:
    return text(one.decisive if one is not None else "", "$muted")


def _curves(a: Record, b: Record, width: int) -> list[Line]:
    lines: list[Line] = []
    for name in dict.fromkeys([*a.curves, *b.curves]):
        series = [
            Series(f"{arm or name} ({run})", points)
            for run, record in (("a", a), ("b", b))
            for arm, points in record.curves.get(name, {}).items()
        ]
        log, log_x = chart.wants_log(series), chart.wants_log_x(series)
        lines += [BLANK] if lines else [heading("Curves", "a and b in one chart")]
        lines.append(Line(join(" ", (name, "bold"), ("  log scale" if log else "", "$muted"))))
        lines += drawn(chart.draw(series, min(width - 2, 110), 12, log_x=log_x, log_y=log))
        lines += legend(series, width, name, a.axes.get(name, b.axes.get(name, ("", "")))[0])
    return lines


def _measurements(a: Record, b: Record, width: int) -> list[Line]:
    if not a.measurements or not b.measurements:
        return []
    try:
        found, band = compare.compare(a, b), 100 * compare.resolution(a, b)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        words = "cannot be compared: written by another version of readtrack"
        return [heading("Measurements"), *wrapped(words, width, "$muted", indent=1)]
    rows: list[list[Cell]] = []
    before = ""
    for one in found:
        either = one.a or one.b
        assert either is not None
        verdict = one.verdict or "–"
        times = [measured(side).time if side is not None else "–" for side in (one.a, one.b)]
        ratio = "" if one.ratio is None else format_number(one.ratio)
        what = measured(either).point
        rows.append(
            [
                text(verdict, _STYLES.get(verdict, "$muted")),
                "" if what == before else what,
                one.variant,
                *times,
                ratio,
                one.note,
            ]
        )
        before = what
    head = ("verdict", "what", "variant", "a", "b", "b / a", "")
    return [heading("Measurements", f"dead band ±{band:.1f} %"), *table(head, rows, width, indent=1)]
