"""Exports the reader's list to a file of their choice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.tui.shell import Shell

_HINT = "Use .md, .bib, .csv, or .json (has everything). enter writes, esc goes back."


class ExportController:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def ask(self) -> None:
        from readtrack.tui.screens.ask import InputDialog

        confirmed: list[Path] = []

        def write(line: str) -> None:
            path = Path(line.strip()).expanduser()
            self._check(path)
            if path.exists() and path not in confirmed:
                confirmed.append(path)
                raise ReadtrackError(f"{path.name} exists. Press enter again to replace it.")
            self._write(path)

        self._shell.ask(InputDialog("Export your list to", _HINT, write, "reading-list.md", selected=True))

    def _check(self, path: Path) -> None:
        """Raise ReadtrackError if the path cannot be an export."""
        from readtrack.transfer.writing import format_of

        format_of(path)
        if path.exists() and not path.is_file():
            raise ReadtrackError(f"{path.name} is not a file.")

    def _write(self, path: Path) -> None:
        from readtrack.transfer import writing

        left_out = writing.write(self._shell.library, writing.format_of(path), path)
        self._shell.say(
            "Written to ",
            (one_line(str(path.absolute())), "$link"),
            *(f"  {sentence}" for sentence in left_out),
        )
