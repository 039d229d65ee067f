"""The artifact files of a run, each under a unique name, and the events that list them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from readtrack.runs.events import EventWriter
from readtrack.text import one_line


class ArtifactFiles:
    def __init__(self, folder: Path, events: EventWriter) -> None:
        self._folder = folder
        self._events = events
        self.taken: set[str] = set()  # names of existing files

    def path(self, name: str, suffix: str) -> Path:
        """The path for a new artifact; creates its folder."""
        letters = (c if c.isalnum() or c in "-_" else "-" for c in one_line(name).lower().replace("×", "x"))
        unique = stem = "".join(letters)[:80] or "artifact"
        count = 2
        while f"{unique}.{suffix}" in self.taken:
            unique, count = f"{stem}-{count}", count + 1
        self.taken.add(f"{unique}.{suffix}")
        (self._folder / "artifacts").mkdir(exist_ok=True)
        return self._folder / "artifacts" / f"{unique}.{suffix}"

    def record(
        self, name: str, path: Path, kind: str, caption: str, **more: str | int | Sequence[str]
    ) -> None:
        """List the file. `more` are fields of `readtrack.runs.events.Artifact`; empty ones are left out."""
        relative = path.relative_to(self._folder).as_posix()
        said = {key: text for key, text in more.items() if text}
        self._events.emit("artifact", name=name, path=relative, kind=kind, caption=caption, **said)
