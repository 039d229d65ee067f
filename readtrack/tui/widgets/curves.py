"""Draws charts and their legends as coloured lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textual.content import Content

from readtrack.present import chart
from readtrack.present.chart import Series
from readtrack.present.scales import is_timed
from readtrack.text import format_number
from readtrack.tui.theme import arm_style
from readtrack.tui.widgets.line_view import Line, join


def drawn(rows: Sequence[chart.Row]) -> list[Line]:
    return [
        Line(join(" ", *(Content.styled(t, "$faint" if i is None else arm_style(i)) for t, i in row)))
        for row in rows
    ]


def legend(series: Sequence[Series], width: int, name: str = "", x: str = "") -> list[Line]:
    """The legend of the metric `name` over the axis `x`. A curve over steps gets its last value, a curve over
    learning rates or sizes its range.
    """
    timed = is_timed(name, x, (place for one in series for place, _ in one.points))
    items: list[Content] = []
    for index, one in enumerate(series):
        value = _last_value(one) if timed else _reach(one)
        name = f"{chart.letter(index)} {one.name}" if len(series) > 1 else one.name
        items.append(join(("━ ", arm_style(index)), (name, arm_style(index)), (f"  {value}", "$muted")))
    lines: list[Line] = []
    row = Content(" ")
    for item in items:
        if len(row.plain) > 1 and row.cell_length + item.cell_length + 2 > width:
            lines.append(Line(row))
            row = Content(" ")
        row = join(row, item, "   ")
    return [*lines, Line(row.rstrip())]


def _last_value(series: Series) -> str:
    """Text such as `last 0.12`. If the curve diverged, the step at which it did follows."""
    _, last = series.points[-1]
    if math.isfinite(last):
        return f"last {format_number(last)}"
    finite = [step for step, value in series.points if math.isfinite(value)]
    since = next(step for step, _ in series.points if not finite or step > finite[-1])
    return f"{last} from {format_number(since)}"


def _reach(series: Series) -> str:
    """The range, such as `0.12 to 0.9`."""
    finite = [value for _, value in series.points if math.isfinite(value)]
    ends = [format_number(end) for end in (min(finite), max(finite))] if finite else ["nan"]
    return " to ".join(dict.fromkeys(ends))
