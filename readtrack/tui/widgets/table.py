"""Tables as lines: columns as wide as their cells; when the page is narrow, words are cut before figures."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from readtrack.text import format_number
from readtrack.tui.widgets.line_view import Line, join, text

_GAP = 2
_NARROWEST = 6
_NAME = 4  # above figures

Cell = Content | str | float | int | None


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, *, indent: int = 0) -> list[Line]:
    """Numbers, and columns that hold nothing but numbers and short figures, stand at the right."""
    cells = [[_content(cell) for cell in row] for row in rows]
    columns = range(len(head))
    right = [bool(rows) and all(_figure(row[column]) for row in rows) for column in columns]
    inside = [max([0, *(row[column].cell_length for row in cells)]) for column in columns]
    widths = [max(text(head[column]).cell_length, inside[column]) for column in columns]
    room = width - indent - _GAP * (len(head) - 1)
    # Half of a figure is another figure.
    _shrink(widths, [max(_NAME, inside[column]) if right[column] else _NARROWEST for column in columns], room)
    _shrink(widths, [_NARROWEST for _ in columns], room)
    lines = [_row([text(name, "$muted") for name in head], widths, right, indent)]
    lines += [_row(row, widths, right, indent) for row in cells]
    return lines


def _row(cells: Sequence[Content], widths: Sequence[int], right: Sequence[bool], indent: int) -> Line:
    placed = []
    for cell, width, to_right in zip(cells, widths, right, strict=True):
        cut = cell.truncate(width, ellipsis=True)
        pad = width - cut.cell_length
        placed.append(cut.pad_left(pad) if to_right else cut.pad_right(pad))
    return Line(join(" " * indent, Content(" " * _GAP).join(placed)))


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    """Cut the widest of the columns that are wider than their `least`, until all of them fit or none is."""
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
