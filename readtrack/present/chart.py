"""Curves as text: braille dots, axes with round numbers, a legend.

Pure functions from numbers to rows of text, without colours or a terminal. A row is a list of spans; a span
is a text and the index of its series, or None for axes and labels.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from readtrack.present import scales

Point = tuple[float, float]
_x, _value = itemgetter(0), itemgetter(1)
Span = tuple[str, int | None]
Row = list[Span]
Scale = Callable[[float], int]

_BULK = 10  # fewest values of which a bulk is computed
_FAR = 25  # in ranges of the middle 80 % of the values
_BLANK = 0x2800
# The bit of each dot in its cell: left and right column, rows from the top.
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart. Points are ordered by x (see `decimated`); a y that is not finite breaks the line.
    A series with a single point is drawn as a cross.
    """

    name: str
    points: Sequence[Point]


def draw(
    series: Sequence[Series],
    width: int,
    height: int,
    *,
    log_x: bool = False,
    log_y: bool = False,
    reach: tuple[float, float] | None = None,
) -> list[Row]:
    """A chart of `width` by `height` characters, including axes; the x axis takes two lines of the height.

    reach  the lowest and highest value of the y axis; values beyond are drawn at its ends

    With several series, a letter at the right edge marks each of them (see `letter`). A logarithmic axis
    leaves out values that are not positive. Without points, the chart is a single line with a message.
    """
    shown = [_drawable(decimated(one.points, 2 * width), log_x, log_y) for one in series]
    finite = [point for points in shown for point in points if math.isfinite(point[1])]
    if not finite:
        text = "no positive value yet" if log_y and any(one.points for one in series) else "no points yet"
        return [[(text, None)]]
    x_axis = _Axis([x for x, _ in finite], log_x)
    y_axis = _Axis(reach or [y for _, y in finite], log_y)
    rows = max(1, height - 2)
    y_ticks = y_axis.ticks(max(2, rows // (2 if log_y else 3)))
    labels = [_label(value) for value in y_ticks]
    margin = max(len(label) for label in labels)
    tail = 2 if len(series) > 1 else 0
    columns = max(2, width - margin - 1 - tail)

    canvas = _Canvas(columns, rows)
    to_column = x_axis.scale(columns * 2)
    to_line = y_axis.scale(rows * 4, flip=True)
    for index, points in enumerate(shown):
        buckets = list(_thinned(points, to_column, to_line))
        canvas.trace(index, buckets)
        if len(points) == 1 and buckets[0] is not None:
            canvas.cross(index, buckets[0])

    tick_rows = {to_line(value) // 4: label for value, label in zip(y_ticks, labels, strict=True)}
    end_rows = _end_rows([_last_row(points, to_line) for points in shown], rows) if tail else {}
    body: list[Row] = []
    for row in range(rows):
        label = tick_rows.get(row)
        axis = (label or "").rjust(margin) + ("┤" if label else "│")
        line = [(axis, None), *canvas.row(row)]
        if row in end_rows:
            line.append((f" {letter(end_rows[row])}", end_rows[row]))
        body.append(line)
    return body + _x_axis(x_axis, sorted({x for x, _ in finite}), columns, margin, to_column)


def decimated(points: Sequence[Point], buckets: int) -> Sequence[Point]:
    """Sort a series by x and reduce it: each of about `buckets` pieces keeps its ends, its extremes and one
    gap. A run tries further settings in any order.
    """
    points = sorted(points, key=_x)
    if len(points) <= 8 * buckets:
        return points
    size = len(points) // buckets
    kept: list[Point] = []
    for start in range(0, len(points), size):
        piece = points[start : start + size]
        if not math.isfinite(sum(map(_value, piece))):
            finite = [point for point in piece if math.isfinite(point[1])]
            gap = next((point for point in piece if not math.isfinite(point[1])), None)
            kept += [gap] if gap is not None else []
            piece = finite or piece[:1]
        kept += [piece[0], min(piece, key=_value), max(piece, key=_value), piece[-1]]
    return sorted(kept, key=_x)


def letter(index: int) -> str:
    """The letter that names a series at the edge of a chart and in its legend: a, b, c, ..."""
    return chr(ord("a") + index % 26)


def wants_log(series: Sequence[Series]) -> bool:
    """Whether a linear axis would hide most of the variation."""
    return scales.wants_log([y for one in series for _, y in one.points])


def reach_of_most(series: Sequence[Series]) -> tuple[float, float] | None:
    """The lowest and highest value near the bulk of the values, or None if all values are near it.

    Without it, one diverged arm would press all others onto the axis.
    """
    values = sorted(y for one in series for _, y in one.points if math.isfinite(y))
    if len(values) < _BULK:
        return None
    low, high = values[len(values) // 10], values[-1 - len(values) // 10]
    room = high - low
    if room == 0 or max(values[-1] - high, low - values[0]) <= _FAR * room:
        return None
    return max(values[0], low - room), min(values[-1], high + room)


def wants_log_x(series: Sequence[Series]) -> bool:
    """Whether the x values are spaced by factors (1, 4, 16, ...) rather than evenly (1, 2, 3, ...)."""
    return scales.by_factors(x for one in series for x, _ in one.points)


def _drawable(points: Sequence[Point], log_x: bool, log_y: bool) -> list[Point]:
    return [
        (x, y if not log_y or y > 0 else math.nan)
        for x, y in points
        if math.isfinite(x) and (not log_x or x > 0)
    ]


class _Axis:
    """The range of one axis, its mapping to dots, and its ticks at round numbers."""

    def __init__(self, values: Sequence[float], log: bool) -> None:
        self.log = log
        low, high = min(values), max(values)
        if low == high:
            room = abs(low) / 2 or 0.5
            low, high = (low / 2 or low, high + room) if log else (low - room, high + room)
        largest = sys.float_info.max
        self.low, self.high = max(low, -largest), min(high, largest)

    def scale(self, dots: int, *, flip: bool = False) -> Scale:
        """A function that maps a value to a dot, 0 .. dots-1; `flip` counts from the far end."""
        warp: Callable[[float], float] = math.log10 if self.log else float
        # Halved, because the distance between the two largest floats overflows.
        low, end = warp(self.low) / 2, dots - 1
        reach = max(warp(self.high) / 2 - low, 5e-324)

        def place(value: float) -> int:
            share = (warp(value) / 2 - low) / reach
            # Rounding may push the extremes out of range; calling min and max per point would take twice as
            # long.
            dot = round(share * end) if 0.0 <= share <= 1.0 else end * (share > 0.0)
            return end - dot if flip else dot

        return place

    def ticks(self, count: int) -> list[float]:
        """At most about `count` round values within the range; its ends if fewer than two are round."""
        found = self._log_ticks(count) if self.log else self._linear_ticks(count)
        return found if len(found) >= 2 else [self.low, self.high]

    def _linear_ticks(self, count: int) -> list[float]:
        span = self.high / count - self.low / count
        if span < 1e-300:
            return []
        power = 10.0 ** math.floor(math.log10(span))
        found: list[float] = []
        for factor in (10, 5, 2, 1, 0.5, 0.2):
            step = power * factor
            first, last = math.ceil(self.low / step), math.floor(self.high / step)
            finer = [index * step for index in range(first, last + 1)]
            if len(found) >= 2 and len(finer) > count + 1:
                break
            found = finer
            if len(found) >= count:
                break
        return found

    def _log_ticks(self, count: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        stride = max(1, math.ceil((last - first) / count))
        decades = [10.0**power for power in range(first, last + 1, stride) if -307 <= power <= 307]
        inside = [value for value in decades if self.low <= value <= self.high]
        if len(inside) >= 2:
            return inside
        return [
            value
            for power in range(max(first, -307), min(last, 307) + 1)
            for value in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
            if self.low <= value <= self.high
        ]


class _Canvas:
    """Braille cells. Each stores the series that was drawn there last."""

    def __init__(self, columns: int, rows: int) -> None:
        self._masks = [[0] * columns for _ in range(rows)]
        self._owners: list[list[int | None]] = [[None] * columns for _ in range(rows)]

    def trace(self, index: int, buckets: Iterable[_Bucket | None]) -> None:
        last: tuple[int, int] | None = None
        for bucket in buckets:
            if bucket is None:
                last = None
                continue
            if last is not None:
                self._line(index, last, (bucket.column, bucket.first))
            cell, dots = bucket.column // 2, _BITS[bucket.column % 2]
            for line in range(bucket.high, bucket.low + 1):
                self._masks[line // 4][cell] |= dots[line % 4]
                self._owners[line // 4][cell] = index
            last = bucket.column, bucket.last

    def _line(self, index: int, start: tuple[int, int], end: tuple[int, int]) -> None:
        (x0, y0), (x1, y1) = start, end
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(1, steps):
            x, y = x0 + round((x1 - x0) * step / steps), y0 + round((y1 - y0) * step / steps)
            self._masks[y // 4][x // 2] |= _BITS[x % 2][y % 4]
            self._owners[y // 4][x // 2] = index

    def cross(self, index: int, bucket: _Bucket) -> None:
        """Two diagonals around a point, cut off at the edges of the canvas."""
        for step in (-2, -1, 0, 1, 2):
            for x, y in (
                (bucket.column + step, bucket.first + step),
                (bucket.column + step, bucket.first - step),
            ):
                if 0 <= x < 2 * len(self._masks[0]) and 0 <= y < 4 * len(self._masks):
                    self._masks[y // 4][x // 2] |= _BITS[x % 2][y % 4]
                    self._owners[y // 4][x // 2] = index

    def row(self, row: int) -> Row:
        spans: Row = []
        for mask, owner in zip(self._masks[row], self._owners[row], strict=True):
            text = chr(_BLANK + mask) if mask else " "
            if spans and spans[-1][1] == owner:
                spans[-1] = (spans[-1][0] + text, owner)
            else:
                spans.append((text, owner))
        return spans


class _Bucket:
    """All points in one column of dots.

    The first and last keep the line connected, and the extremes preserve spikes. Lines of dots are counted
    from the top, so `high` <= `low`.
    """

    __slots__ = ("column", "first", "high", "last", "low")

    def __init__(self, column: int, line: int) -> None:
        self.column = column
        self.first = self.last = self.high = self.low = line

    def add(self, line: int) -> None:
        self.last = line
        if line < self.high:
            self.high = line
        elif line > self.low:
            self.low = line


def _thinned(points: Sequence[Point], to_column: Scale, to_line: Scale) -> Iterator[_Bucket | None]:
    """One bucket per column that has points; None stands for a gap."""
    bucket: _Bucket | None = None
    for x, y in points:
        if not math.isfinite(y):
            if bucket is not None:
                yield bucket
            yield None
            bucket = None
            continue
        column, line = to_column(x), to_line(y)
        if bucket is not None and bucket.column == column:
            bucket.add(line)
            continue
        if bucket is not None:
            yield bucket
        bucket = _Bucket(column, line)
    if bucket is not None:
        yield bucket


def _last_row(points: Sequence[Point], to_line: Scale) -> int | None:
    return next((to_line(y) // 4 for _, y in reversed(points) if math.isfinite(y)), None)


def _end_rows(wanted: list[int | None], rows: int) -> dict[int, int]:
    """Maps rows to series, at most one per row. Series that end in the same row are moved apart."""
    order = sorted((row, index) for index, row in enumerate(wanted) if row is not None)
    placed: list[list[int]] = []
    for row, index in order:
        placed.append([max(row, placed[-1][0] + 1) if placed else row, index])
    limit = rows - 1
    for item in reversed(placed):
        item[0] = min(item[0], limit)
        limit = item[0] - 1
    return {row: index for row, index in placed if row >= 0}


def _x_axis(axis: _Axis, values: list[float], columns: int, margin: int, to_column: Scale) -> list[Row]:
    # A few distinct values are used as labels themselves: 512, 1024, 2048 rather than 500, 1000, 2000.
    ticks = values if 1 <= len(values) <= 8 else axis.ticks(max(2, columns // 12))
    line, labels = ["─"] * columns, [" "] * columns
    free_from = 0
    for value in ticks:
        at, text = to_column(value) // 2, _label(value)
        start = min(max(at - len(text) // 2, free_from), columns - len(text))
        if start < free_from or start > at:  # no room near the tick
            continue
        line[at] = "┬"
        labels[start : start + len(text)] = text
        free_from = start + len(text) + 1
    pad = " " * margin
    return [[(f"{pad}└{''.join(line)}", None)], [(f"{pad} {''.join(labels)}".rstrip(), None)]]


def _label(value: float) -> str:
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    return f"{value:.4g}"
