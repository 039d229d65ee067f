"""The footer of a screen with keys of its own."""

from __future__ import annotations

from textual.content import Content

from readtrack.present.actions import Where, shown_key, where
from readtrack.tui.widgets.line_view import join


def key_hints(place: Where, width: int, *, enter: str = "") -> Content:
    """All keys of `place`, in as many lines as it takes: `enter open   s sort   ...   esc back`.

    enter   what the enter key does, if anything
    """
    keys = [("enter", enter)] if enter else []
    keys += [(shown_key(one.keys[0]), one.label) for one in where(place)]
    first, *rest = (join((key, "bold"), f" {label}") for key, label in (*keys, ("esc", "back")))
    lines = [first]
    for hint in rest:
        longer = join(lines[-1], "   ", hint)
        lines[-1:] = [longer] if longer.cell_length <= width else [lines[-1], hint]
    return Content("\n").join(lines)
