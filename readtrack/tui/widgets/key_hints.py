"""Footers with the keys of a screen."""

from __future__ import annotations

from collections.abc import Iterable

from textual import events
from textual.content import Content
from textual.widgets import Static

from readtrack.present.actions import Action, Where, shown_key, where
from readtrack.tui.widgets.line_view import join


def key_hints(place: Where, width: int, *, enter: str = "") -> Content:
    """All keys of `place`, on several lines if needed, such as `enter open   s sort   ...   esc back`.

    enter   the label of the enter key, "" without one
    """
    keys = [("enter", enter)] if enter else []
    keys += [(shown_key(one.keys[0]), one.label) for one in where(place)]
    first, *rest = (join((key, "bold"), f" {label}") for key, label in (*keys, ("esc", "back")))
    lines = [first]
    for hint in rest:
        longer = join(lines[-1], "   ", hint)
        lines[-1:] = [longer] if longer.cell_length <= width else [lines[-1], hint]
    return Content("\n").join(lines)


class Footer(Static):
    """A line of key hints. Clicking a hint presses its key."""

    _ends: tuple[tuple[int, str], ...] = ()  # the end column of each hint, and its key

    def fitting(self, wanted: Iterable[Action], width: int) -> Content:
        """The hints that fit, most important first."""
        shown, ends, used = [], [], 0
        for one in wanted:
            hint = join((shown_key(one.keys[0]), "bold $foreground"), " ", one.label)
            if used + hint.cell_length + 3 <= width:
                shown.append(hint)
                used += hint.cell_length + 3
                ends.append((used, one.keys[0]))
        self._ends = tuple(ends)
        return Content("   ").join(shown)

    def on_click(self, event: events.Click) -> None:
        key = next((key for end, key in self._ends if event.x <= end), None)
        if key is not None:
            # Sent by the app, because a key that the screen itself sends would not reach the screen.
            self.app.call_later(self.app.simulate_key, key)
