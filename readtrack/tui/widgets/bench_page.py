"""Draws measurements as tables, and time over size as a chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from textual.content import Content

from readtrack import signs
from readtrack.present import chart
from readtrack.present.benchmarks import FLAGS, Speed, VariantView, absent, common_axes, measured
from readtrack.present.chart import Series
from readtrack.runs.record import Record
from readtrack.text import format_number
from readtrack.tui.widgets.curves import drawn, legend
from readtrack.tui.widgets.line_view import BLANK, Line, Lines, gradual, join, text, wrapped
from readtrack.tui.widgets.table import Cell, table


@gradual
def benchmark(record: Record, width: int) -> Iterator[Lines]:
    """A table for each operation and mode, and a chart if there are several sizes."""
    groups: dict[tuple[str, ...], list[VariantView]] = {}
    for row in map(measured, record.measurements):
        groups.setdefault((row.case, row.mode, row.dtype, row.device), []).append(row)
    if not groups:
        waiting = record.outcome is None
        words = "Measurements appear here as they finish." if waiting else "This run has no measurements."
        yield wrapped(words, width, "$muted", indent=1)
    for number, ((case, *facts), rows) in enumerate(groups.items()):
        head = join(" ", (case, "bold $link"), "  ", (" · ".join(filter(None, facts)), "$muted"))
        yield [BLANK, BLANK, Line(head)] if number else [Line(head)]
        yield _table(rows, width)
        yield _bars(rows, width)
        yield _scaling(rows, width)


def _table(rows: Sequence[VariantView], width: int) -> list[Line]:
    shown, without = absent(rows)
    same = common_axes(shown)
    axes = [name for name in dict.fromkeys(name for row in shown for name in row.axes) if name not in same]
    columns = [column for column in _COLUMNS if width >= column.from_width and any(map(column.cell, shown))]
    cells: list[list[Cell]] = []
    before: list[str] = []
    for row in shown:
        at = [row.axes.get(name, "") for name in axes]
        cells.append([*(["" for _ in at] if at == before else at), *_cells(row, columns)])
        before = at
    all_at = ", ".join(f"{name} {value}" for name, value in same.items())
    lines = wrapped(all_at, width, "$muted", indent=1) if all_at else []
    head = [*axes, "role", "variant", "time", *(column.name for column in columns)]
    lines += table(head, cells, width, indent=1) if shown else []
    for reason, names in without.items():
        lines += wrapped(f"– {reason}: {', '.join(names)}", width, "$muted", indent=1)
    for flag, count in Counter(flag for row in shown for flag in row.flags).items():
        where = "all" if count == len(shown) else f"{count} of {len(shown)}"
        lines += wrapped(f"! {flag} ({where}): {FLAGS.get(flag, '')}", width, "$reading", indent=1)
    return lines


def _bars(rows: Sequence[VariantView], width: int) -> list[Line]:
    """A bar for each variant and size: its share of this machine's ceiling, which is drawn as a line."""
    shown = [row for row in rows if row.ceiling is not None]
    if not shown:
        return []
    same = common_axes(shown)
    indent = max(len(row.name) for row in shown) + 3
    room = max(10, min(width - indent - 8, 60))
    lines = [BLANK, Line(join(" ", ("share of the ceiling (┆) that was measured on this machine", "$muted")))]
    before: list[str] = []
    for row in shown:
        share = row.ceiling or 0.0
        at = [f"{name} {value}" for name, value in row.axes.items() if name not in same]
        lines += [Line(join(" ", (", ".join(at), "")))] if at and at != before else []
        before = at
        bar = "█" * min(room, round(room * share / 100)) or "▏"
        style = "$good" if row.role == "paper" and row.faster else "$link"
        gap = " " * (room - len(bar)) + "┆"
        label = f"  {row.name:<{indent - 2}}"
        lines.append(Line(join((label, ""), (bar, style), (gap, "$muted"), (f"{share:4.0f}%", ""))))
    return lines


class _Column(NamedTuple):
    """A column of the table. `cell` returns "" for an empty cell, and empty columns are left out."""

    name: str
    from_width: int
    cell: Callable[[VariantView], Cell]


def _ratio(speed: Speed | None) -> Cell:
    return "" if speed is None else text(speed.text, "$good" if speed.faster else "")


def _rounded(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


_COLUMNS = (
    _Column("±", 0, lambda row: row.half.removeprefix("±")),
    _Column("vs naive", 0, lambda row: _ratio(row.naive)),
    _Column("±", 100, lambda row: row.naive.half.removeprefix("±") if row.naive else ""),
    _Column("vs best", 0, lambda row: _ratio(row.strong)),
    _Column("±", 100, lambda row: row.strong.half.removeprefix("±") if row.strong else ""),
    _Column("memory", 70, lambda row: row.memory),
    _Column("of ceiling", 84, lambda row: _rounded(row.ceiling, "{:.0f}%")),
    _Column("closeness", 112, lambda row: _rounded(row.closeness, "{:.2f}")),
    _Column("GFLOP/s", 124, lambda row: "" if row.gflops is None else format_number(row.gflops)),
    _Column("GB/s", 134, lambda row: "" if row.gbps is None else format_number(row.gbps)),
)


def _cells(row: VariantView, columns: Sequence[_Column]) -> Iterator[Cell]:
    yield text(row.role, "$muted")
    yield text(row.name, "bold" if row.role == "paper" else "")
    if row.nanoseconds is None:
        yield text(
            f"{signs.ABSENT if row.skipped else signs.FAILED} {row.missing}",
            "$muted" if row.skipped else "$bad",
        )
        yield from [""] * len(columns)
    else:
        yield Content(row.time)
        yield from (column.cell(row) for column in columns)


def _scaling(rows: Sequence[VariantView], width: int) -> list[Line]:
    """A chart of time over the first numeric axis, with a line for each variant and all other axes fixed."""
    axis = next((name for row in rows for name in row.places), None)
    if axis is None:
        return []

    def others(row: VariantView) -> dict[str, str]:
        return {name: value for name, value in row.axes.items() if name != axis}

    fixed = others(rows[0])
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        if axis in row.places and row.nanoseconds is not None and others(row) == fixed:
            points.setdefault(row.name, {})[row.places[axis]] = row.nanoseconds / 1e6
    series = [Series(name, sorted(found.items())) for name, found in points.items()]
    if not series or max(len(one.points) for one in series) < 2:
        return []
    at_fixed = ", ".join(f"{name} {value}" for name, value in fixed.items())
    heading = f"time in ms over {axis}" + (f" ({at_fixed})" if at_fixed else "")
    log_x = all(x > 0 for one in series for x, _ in one.points)
    drawing = chart.draw(series, min(width - 2, 100), 12, log_x=log_x, log_y=True)
    return [BLANK, Line(join(" ", (heading, "$muted"))), *drawn(drawing), *legend(series, width, x=axis)]
