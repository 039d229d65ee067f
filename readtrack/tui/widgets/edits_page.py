"""Draws the diffs of a plugin's files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from readtrack.plugins.edits import Edit
from readtrack.tui.widgets.line_view import BLANK, Line, heading, text, wrapped

_STYLES = {"+": "$good", "-": "$bad", "@": "$link"}


def page(edits: Sequence[Edit], width: int) -> list[Line]:
    """Each file with its counts and its unified diff."""
    lines: list[Line] = []
    for edit in edits:
        lines += [*([BLANK] if lines else []), heading(edit.file, edit.counts)]
        lines += diff(edit.diff(), width)
    return lines or wrapped("The code is unchanged.", width, "$muted", indent=1)


def diff(found: Iterable[str], width: int) -> list[Line]:
    """The lines of a unified diff."""
    lines: list[Line] = []
    for line in found:
        lines += wrapped(text(line.expandtabs(4), _STYLES.get(line[:1], "$muted")), width, indent=1)
    return lines
