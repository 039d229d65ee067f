"""Draws tables. Columns are as wide as their cells; on a narrow page, words wrap and numbers stay whole."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from textual.content import Content

from readtrack.text import format_number
from readtrack.tui.widgets.line_view import EMPTY, Line, join, text

_GAP = 2
_NARROWEST = 6
_NAME = 4  # minimum width of a column of numbers, for its heading
_LONG_WORD = 16  # longer words may be broken
_LONG_FIGURE = 40  # longer texts that begin with a digit wrap like other texts

Cell = Content | str | float | int | None


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, *, indent: int = 0) -> list[Line]:
    """The table's lines. A row is as high as its longest cell. Numbers, and columns that contain only numbers
    or short texts that begin with a digit, are right-aligned.
    """
    layout = _layout(head, rows, width, indent)
    lines = _wrapped(layout.head, layout, indent, whole=[False for _ in head])
    for row in layout.rows:
        lines += _wrapped(row, layout, indent, whole=layout.right)
    return lines


def one_line_each(head: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> list[Line]:
    """The table with one line for each row, for a list with a cursor. Long cells are cut."""
    layout = _layout(head, rows, width, 0)
    return [_line(row, layout, 0) for row in (layout.head, *layout.rows)]


def turned(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> tuple[list[str], list[list[Cell]]]:
    """The same table with its columns as rows; the first column gives the headings."""
    names = [_content(row[0]).plain for row in rows]
    return [head[0], *names], [[head[at], *(row[at] for row in rows)] for at in range(1, len(head))]


def fits(head: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, *, indent: int = 0) -> bool:
    """Whether the table fits without breaking words."""
    return _layout(head, rows, width, indent).fits


class _Layout(NamedTuple):
    """Column widths. `right` are the right-aligned columns; `fits` says whether no word has to be broken."""

    head: list[Content]
    rows: list[list[Content]]
    widths: list[int]
    right: list[bool]
    fits: bool


def _layout(head: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, indent: int) -> _Layout:
    names = [text(name, "$muted") for name in head]
    cells = [[_content(cell) for cell in row] for row in rows]
    columns = range(len(head))
    inside = [max([0, *(row[column].cell_length for row in cells)]) for column in columns]
    right = [
        bool(rows) and inside[column] <= _LONG_FIGURE and all(_figure(row[column]) for row in rows)
        for column in columns
    ]
    widths = [max(names[column].cell_length, inside[column]) for column in columns]
    room = width - indent - _GAP * (len(head) - 1)
    # First headings are wrapped, then words in cells. Numbers are never broken, because half a number is
    # misleading.
    heads = [max(_longest_word(name), min(name.cell_length, _NARROWEST)) for name in names]
    words = [max([0, *(_longest_word(row[column]) for row in cells)]) for column in columns]
    _shrink(widths, [max(heads[column], inside[column]) for column in columns], room)
    least = [max(heads[column], inside[column] if right[column] else words[column]) for column in columns]
    _shrink(widths, least, room)
    fits = sum(widths) <= room
    # A broken heading is read once, a broken word in every row.
    heads = [min(name, _NARROWEST) for name in heads]
    least = [max(heads[column], inside[column] if right[column] else words[column]) for column in columns]
    _shrink(widths, least, room)
    _shrink(widths, [max(_NAME, inside[column]) if right[column] else _NARROWEST for column in columns], room)
    _shrink(widths, [_NARROWEST for _ in columns], room)
    return _Layout(names, cells, widths, right, fits)


def _longest_word(cell: Content) -> int:
    return min(_LONG_WORD, max(map(len, cell.plain.split()), default=0))


def _wrapped(cells: Sequence[Content], layout: _Layout, indent: int, *, whole: Sequence[bool]) -> list[Line]:
    """A row as lines. `whole` are the columns whose cells stay on one line."""
    columns = [
        [cell] if keep or cell.cell_length <= width else [line.rstrip() for line in cell.wrap(width)]
        for cell, width, keep in zip(cells, layout.widths, whole, strict=True)
    ]
    return [_line(row, layout, indent) for row in zip_longest(*columns, fillvalue=EMPTY)]


def _line(cells: Sequence[Content], layout: _Layout, indent: int) -> Line:
    placed = []
    for cell, width, to_right in zip(cells, layout.widths, layout.right, strict=True):
        cut = cell.truncate(width, ellipsis=True)
        pad = width - cut.cell_length
        placed.append(cut.pad_left(pad) if to_right else cut.pad_right(pad))
    return Line(join(" " * indent, Content(" " * _GAP).join(placed)))


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    """Reduce the widest columns until the table fits or every column has its `least` width."""

    def cut_to(most: int) -> list[int]:
        return [max(min(width, most), min(width, low)) for width, low in zip(widths, least, strict=True)]

    # Cut to the next smaller width in one step, because a cell may have a thousand characters.
    above = bisect_left(range(max(widths, default=0)), True, key=lambda most: sum(cut_to(most)) > room)
    widths[:] = cut_to(above)
    while sum(widths) > room:
        wider = [column for column, width in enumerate(widths) if width > least[column]]
        if not wider:
            return
        widths[max(wider, key=widths.__getitem__)] -= 1


def _content(cell: Cell) -> Content:
    if isinstance(cell, Content):
        return cell
    if cell is None:
        return Content("")
    if isinstance(cell, float):
        return text(format_number(cell))
    return text(f"{cell:,}" if isinstance(cell, int) and abs(cell) >= 1e4 else cell)


def _figure(cell: Cell) -> bool:
    if isinstance(cell, int | float) or cell is None:
        return True
    plain = cell.plain.strip() if isinstance(cell, Content) else cell.strip()
    return not plain or plain[0].isdigit() or plain in ("–", "nan")
