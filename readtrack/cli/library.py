"""Opens the library for commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.cli import terminal
from readtrack.errors import ReadtrackError
from readtrack.text import counted

if TYPE_CHECKING:
    from readtrack.home import Home
    from readtrack.library import Library

_SHOWN = 3


def open_library() -> Library:
    """Open the user's library. Problems with its files are reported on stderr and do not stop the command."""
    from readtrack.library import Library

    library = Library.open()
    for problem in library.problems[:_SHOWN]:
        terminal.print_err(f"readtrack: {problem}")
    if len(library.problems) > _SHOWN:
        terminal.print_err(
            f"readtrack: {counted(len(library.problems) - _SHOWN, 'more problem')}. "
            "See them all with `readtrack doctor`"
        )
    return library


def run_folder(home: Home, query: str) -> Path:
    """The folder of the run whose id is `query`, or starts or ends with it.

    Raises ReadtrackError unless there is exactly one.
    """
    names = sorted(path.name for path in home.runs.glob("*") if path.is_dir())
    found = [name for name in names if name == query] or [
        name for name in names if query and (name.startswith(query) or name.endswith(query))
    ]
    if not found:
        raise ReadtrackError(f"there is no run {query!r}. `readtrack results` lists the runs.")
    if len(found) > 1:
        raise ReadtrackError(f"{query!r} matches several runs: {', '.join(found[-5:])}.")
    return home.runs / found[0]
