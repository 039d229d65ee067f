"""Decides which actions the footer of the library screen offers now."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from readtrack.tui.widgets.outline import Entry


class Situation(NamedTuple):
    """State of the library screen: the selected line, the visible pane, and the work in progress."""

    entry: Entry | None
    runnable: bool  # the line's paper has a plugin
    exercises: bool  # the paper's plugin declares exercises
    has_run: bool
    edited: bool  # the run on screen ran an edited copy
    on_right: bool
    on_run: bool  # the right pane shows a run
    filtered: bool
    running: bool
    syncing: bool
    queued: bool
    folded: bool  # the line hides nested rows


def applies(now: Situation, action_id: str) -> bool:
    entry, in_run = now.entry, now.on_run and now.on_right
    return {
        "cancel": now.running or now.syncing,
        "sync": not in_run,
        "sync_page": now.syncing,
        "switch_view": now.on_run or now.has_run,
        "back": now.on_right or now.filtered,
        "run": now.runnable,
        "run_edits": now.edited,
        "break": now.runnable,
        "code": now.runnable,
        "practice": now.exercises,
        "put_on_list": entry is not None and entry.off_list,
        "link": not in_run and entry is not None and entry.row is not None and not entry.row.papers,
        "unfold": now.folded and not in_run,
        "queue": now.queued,
        "tick": not in_run,
        "undo": not in_run,
        "note": not in_run,
    }.get(action_id, True)
