"""Which actions the footer of the list and the run offers now."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readtrack.tui.screens.library import LibraryScreen


def applies(main: LibraryScreen, action_id: str) -> bool:
    app, entry, record = main.readtrack_app, main.entry, main.run_view.record
    runnable = entry is not None and entry.plugin in app.library.runnable()
    return {
        "cancel": app.following is not None or app.syncs.alive is not None,
        "sync": not main.looking,
        "sync_page": app.syncs.alive is not None,
        "switch_view": main.on_run or main.has_run(),
        "back": main.on_right or bool(main.filter.value),
        "run": runnable,
        "run_edits": record is not None and record.job is not None and bool(record.job.edited),
        "break": runnable,
        "code": runnable,
        "put_on_list": entry is not None and entry.off_list,
        "link": not main.looking and entry is not None and entry.row is not None and not entry.row.papers,
        "queue": bool(app.runs.waiting),
        "tick": not main.looking,
        "undo": not main.looking,
        "note": not main.looking,
    }.get(action_id, True)
