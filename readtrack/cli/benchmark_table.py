"""Prints a paper's benchmarks as a table that fits a terminal: a heading for each case, a line for each
variant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from readtrack.cli import terminal
from readtrack.present.benchmarks import VariantView, axis_words, common_axes, measured
from readtrack.text import one_line

_HEAD = ("variant", "role", "time", "±", "vs naive", "vs best", "ceiling", "remarks")
_GAP = "  "
_LEAST = 12  # columns; remarks are left out if there is less room


class _Group(NamedTuple):
    """The variants of one case on one device, and the reasons why some of them have no time."""

    title: str
    device: str
    rows: list[VariantView]
    without: dict[str, list[str]]


def show(benchmarks: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Print the table. `benchmarks` maps each device to its measurements. Common facts are printed once,
    above.
    """
    of_device = {one_line(device): list(map(measured, events)) for device, events in benchmarks.items()}
    rows = [row for found in of_device.values() for row in found]
    several_points = len({row.point for row in rows}) > 1
    axes = common_axes(rows) if several_points else {}
    kinds = [{row.mode for row in rows}, {row.dtype for row in rows}] if several_points else []
    rest = [next(iter(values)) for values in kinds if len(values) == 1]
    groups = list(_groups(of_device, axes, rest))
    everywhere = ", ".join([*axis_words(axes), *rest])
    _say_beside("benchmark", f"{' and '.join(of_device)}{f'; all: {everywhere}' if everywhere else ''}")
    always = groups[0].without if all(group.without == groups[0].without for group in groups) else {}
    for reason, names in always.items():
        _say_indented(f"{reason}: {'; '.join(names)}")
    contended = sum("contended" in row.flags for row in rows)
    if contended:
        count = sum(len(group.rows) for group in groups)
        _say_indented(
            f"contended: {contended} of {count} times don't count, as other programs used the machine"
        )
    timed = [_cells(row) for group in groups for row in group.rows]
    columns = [
        max(map(terminal.cells, (name, *cells))) if any(cells) else 0
        for name, *cells in zip(_HEAD, *timed, strict=True)
    ]
    terminal.print_out(terminal.paint(_line(_HEAD, columns, None), "dim"))
    for before, group in zip([None, *groups], groups, strict=False):
        if before is None or before.title != group.title:
            for line in terminal.wrap(group.title, terminal.width()):
                terminal.print_out(terminal.paint(line, "bold"))
        if len(of_device) > 1:
            terminal.print_out(_GAP + terminal.paint(group.device, "cyan"))
        for row in group.rows:
            terminal.print_out(_line(_cells(row), columns, row))
        for reason, names in (group.without if not always else {}).items():
            _say_indented(f"{reason}: {'; '.join(names)}")


def _groups(
    of_device: Mapping[str, Sequence[VariantView]], common: Mapping[str, str], rest: Sequence[str]
) -> Iterator[_Group]:
    found: dict[str, dict[str, _Group]] = {}
    for device, rows in of_device.items():
        for row in rows:
            axes = {name: value for name, value in row.axes.items() if name not in common}
            kind = [word for word in (row.mode, row.dtype) if word not in rest]
            title = ", ".join([row.case, *axis_words(axes), *kind])
            group = found.setdefault(title, {}).setdefault(device, _Group(title, device, [], {}))
            if row.missing:
                why = f"{'skipped' if row.skipped else 'no time'}: {row.missing}"
                group.without.setdefault(why, []).append(row.name)
            else:
                group.rows.append(row)
    for devices in found.values():
        yield from devices.values()


def _cells(row: VariantView) -> tuple[str, ...]:
    naive, strong = (
        f"{speed.text} {speed.half}".rstrip() if speed else "" for speed in (row.naive, row.strong)
    )
    ceiling = "" if row.ceiling is None else f"{row.ceiling:.0f} %"
    return row.name, row.role, row.time, row.half, naive, strong, ceiling, row.remarks()


def _line(cells: Sequence[str], columns: Sequence[int], row: VariantView | None) -> str:
    """One line of the table, with the columns that fit; the last column (remarks) is cut to the remaining
    width.
    """
    total = terminal.width()
    line, used = "", 0
    for index, (cell, width) in enumerate(zip(cells, columns, strict=True)):
        last = index == len(columns) - 1
        room = None if total is None else total - used - len(_GAP)
        if room is not None and room < (_LEAST if last else width):
            break
        if width == 0:
            continue
        text = terminal.clip(cell, room) if last else terminal.pad(cell, width)
        line += _GAP + terminal.paint(text, *_styles(row, index))
        used += len(_GAP) + width
    return line.rstrip()


def _styles(row: VariantView | None, index: int) -> tuple[terminal.Style, ...]:
    if row is None:
        return ()
    if index == 0 and row.role == "paper":
        return ("bold",)
    speed = {4: row.naive, 5: row.strong}.get(index)
    return ("green",) if speed is not None and speed.faster else ()


def _say_beside(label: str, text: str) -> None:
    total = terminal.width()
    shown = terminal.paint(label, "bold")
    for line in terminal.wrap(text, None if total is None else total - len(label) - len(_GAP)):
        terminal.print_out(f"{shown}{_GAP}{line}")
        shown = " " * len(label)


def _say_indented(text: str) -> None:
    total = terminal.width()
    for line in terminal.wrap(text, None if total is None else total - len(_GAP)):
        terminal.print_out(terminal.paint(_GAP + line, "dim"))
