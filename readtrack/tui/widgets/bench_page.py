"""Measurements as tables, and time over size as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from textual.content import Content

from readtrack.runs.record import Record
from readtrack.text import number, size
from readtrack.tui.widgets import chart
from readtrack.tui.widgets.chart import Series
from readtrack.tui.widgets.curves import drawn, legend
from readtrack.tui.widgets.page import BLANK, Line, join, text, wrapped
from readtrack.tui.widgets.table import Cell, table


def benchmark(record: Record, width: int) -> list[Line]:
    """A table per operation and mode, and a chart where there are several sizes."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for row in record.measurements:
        key = tuple(str(row.get(name, "")) for name in ("case", "mode", "dtype", "device"))
        groups.setdefault(key, []).append(row)  # type: ignore[arg-type]
    if not groups:
        waiting = record.outcome is None
        words = "Measurements appear here one by one." if waiting else "This run measured nothing."
        return wrapped(words, width, "$muted", indent=1)
    lines: list[Line] = []
    for (case, mode, dtype, device), rows in groups.items():
        facts = " · ".join(part for part in (mode, dtype, device) if part)
        lines += ([BLANK, BLANK] if lines else []) + [
            Line(join(" ", (case, "bold $link"), "  ", (facts, "$muted")))
        ]
        lines += _measurements(rows, width)
        lines += _scaling(rows, width)
    return lines


_WIDE = (("GFLOP/s", "tflops", 1e3), ("GB/s", "gbps", 1.0))


def _measurements(rows: Sequence[Mapping[str, Any]], width: int) -> list[Line]:
    axes = list(dict.fromkeys(name for row in rows for name in _mapping(row, "axes")))
    rates = [column for column in _WIDE if any(_float(row, column[1]) for row in rows)] if width >= 96 else []
    head = [*axes, "variant", "time", "±", "vs naive", "vs strong", "memory", *(name for name, _, _ in rates)]
    cells: list[list[Cell]] = []
    before: list[str] = []
    for row in rows:
        at = [_axis(_mapping(row, "axes").get(name)) for name in axes]
        cells.append([*(["" for _ in at] if at == before else at), *_cells(row, rates)])
        before = at
    return table(head, cells, width, indent=1)


def _cells(row: Mapping[str, Any], rates: Sequence[tuple[str, str, float]]) -> Iterator[Cell]:
    ours = row.get("role") == "paper"
    role = str(row.get("role") or "")
    yield join((str(row.get("variant", "")), "bold" if ours else ""), (f" {role}" if role else "", "$muted"))
    timing = _mapping(row, "t_ns")
    median = _float(timing, "p50")
    if median is None:
        yield _no_time(row)
        yield from [""] * (4 + len(rates))
        return
    yield Content(nanoseconds(median))
    spread = _float(timing, "iqr")
    yield f"{spread / median / 2:.0%}" if spread is not None and median else ""
    for name in ("vs_naive", "vs_strong"):
        ratio = _float(row, name)
        yield Content.styled(f"{ratio:.2f}×", "$good" if ratio > 1.05 else "") if ratio is not None else ""
    peak = _float(_mapping(row, "mem"), "peak_bytes")
    yield size(peak) if peak is not None else ""
    for _, name, factor in rates:
        rate = _float(row, name)
        yield number(rate * factor) if rate is not None else ""


def _no_time(row: Mapping[str, Any]) -> Content:
    if row.get("skipped"):
        return text(f"– {row['skipped']}", "$muted")
    check = _mapping(row, "ok")
    reason = check.get("reason") or "differs from the reference"
    return text(f"✗ {reason}", "$bad")


def _scaling(rows: Sequence[Mapping[str, Any]], width: int) -> list[Line]:
    """Median time over the first axis that is a number, one line a variant."""
    axis = next(
        (
            name
            for row in rows
            for name, value in _mapping(row, "axes").items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ),
        None,
    )
    if axis is None:
        return []
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        at, median = _float(_mapping(row, "axes"), axis), _float(_mapping(row, "t_ns"), "p50")
        if at is not None and median is not None:
            points.setdefault(str(row.get("variant", "")), {}).setdefault(at, median / 1e6)
    series = [Series(name, sorted(found.items())) for name, found in points.items()]
    if not series or max(len(one.points) for one in series) < 2:
        return []
    heading = Line(join(" ", (f"time in ms over {axis}", "$muted")))
    log_x = all(x > 0 for one in series for x, _ in one.points)
    drawing = chart.draw(series, min(width - 2, 100), 12, log_x=log_x, log_y=True)
    return [BLANK, heading, *drawn(drawing), *legend(series, width)]


def nanoseconds(value: float) -> str:
    """`840 ns`, `1.24 ms`, `2.1 s`."""
    for limit, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g} ns"


def _mapping(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def _float(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _axis(value: object) -> str:
    return number(value) if isinstance(value, float) else "" if value is None else str(value)
