"""The two lines above the list: counts by state, and an introduction with the first keys."""

from __future__ import annotations

from collections.abc import Mapping

from textual.content import Content

from readtrack.present import marks
from readtrack.present.actions import key
from readtrack.reading_list.journal import STATES, State
from readtrack.tui.theme import state_style
from readtrack.tui.widgets.line_view import join, pair, text


def counts(of_state: Mapping[State, int], runnable: int, found: int | None, width: int) -> Content:
    """The app's name, the number of matches of the filter (if there is one), and the counts."""
    wide = width >= 108
    parts = [
        join(
            (f"{number} ", "$faint"),
            (f"{marks.STATES[state]} ", state_style(state)),
            str(of_state[state]),
            (f" {state}" if wide else "", "$muted"),
        )
        for number, state in enumerate(STATES, 1)
    ]
    parts.append(
        join((f"{marks.RUNNABLE} ", "$muted"), str(runnable), (" runnable" if wide else "", "$muted"))
    )
    name = text("readtrack", "bold $heading")
    if found is not None:
        name = join(name, (f"   {found} found", "$link"))
    return pair(name, Content("   ").join(parts), width)


def welcome(runnable: int, width: int) -> Content:
    """The introduction for a new user, with the first keys to press."""
    if width >= 114:
        what = f"{runnable} of these papers can run on this machine.   "
        keys = {"run": "runs the selected one", "code": "shows its code", "own_list": "chooses your list"}
    else:
        what = f"{runnable} of these papers can run.   "
        keys = {"run": "runs one", "code": "shows code", "own_list": "picks a list"}
    told = (join((key(one), "bold"), (f" {does}", "$muted")) for one, does in keys.items())
    return join(what, Content("   ").join(told))
