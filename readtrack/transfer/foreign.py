"""Reads another person's home as untrusted data: decides which files are taken, and up to what size.

The other home's owner controls all names and link targets. A file is taken if it is a regular file in a place
where a home keeps data. Files that contain or name programs (`CODE`) are taken only on request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from readtrack.errors import ReadtrackError

_MIB = 1 << 20
# Size limits in bytes. The journal and a run's events grow with use. A PDF has the same limit as in a sync.
_LARGEST = {
    "papers.yaml": 64 * _MIB,
    "journal.jsonl": 256 * _MIB,
    "bets.jsonl": 16 * _MIB,
    "note-template.md": _MIB,
    "places.yaml": _MIB,
    "notes": 16 * _MIB,
    "metadata": 16 * _MIB,
    "pdfs": 200 * _MIB,
    "imported": 64 * _MIB,
    "runs": 300 * _MIB,
    "set-aside": 256 * _MIB,
    "plugins": 16 * _MIB,
    "practice": 16 * _MIB,
}
CODE = ("plugins", "practice", "places.yaml")
# `place.json`, `detached` and other files that a worker leaves in a run's folder describe its process, which
# only concerns that machine.
_OF_A_RUN = (
    "job.json",
    "events.jsonl",
    "result.json",
    "log.txt",
    "edits.json",
    "code.json",
    "note.md",
    "pinned",
    "artifacts",
    "attempts",
)
_DEEPEST = 12  # levels of folders
_MOST = 200_000  # files and folders
_MOST_BYTES = 64 << 30


@dataclass(slots=True)
class Survey:
    """The files of another home.

    files     relative path to size of files that can be taken, sorted
    code      the files among them that contain or name programs
    left_out  relative path to the reason why a file is not taken
    """

    files: dict[str, int] = field(default_factory=dict)
    code: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def under(self, folder: str) -> list[str]:
        return [name for name in self.files if name.startswith(f"{folder}/")]


def limit(name: str) -> int | None:
    """The size limit in bytes for the file at this relative path; None if a home has no data there."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or len(parts) > _DEEPEST or not name.isprintable():
        return None
    if any(part.startswith((".", "__")) or part == ".." for part in parts if part != "__init__.py"):
        return None
    if parts[0] == "runs" and (len(parts) < 3 or parts[2] not in _OF_A_RUN):
        return None
    alone = "." in parts[0]
    return _LARGEST.get(parts[0]) if alone == (len(parts) == 1) else None


def is_code(name: str) -> bool:
    return name.partition("/")[0] in CODE


def survey(root: Path) -> Survey:
    """List the names in another home without opening any file.

    Raises ReadtrackError if there are more files or bytes than in any real home.
    """
    found = Survey()
    total = 0
    for count, entry in enumerate(_walk(root), start=1):
        name = Path(entry.path).relative_to(root).as_posix()
        if not entry.is_file(follow_symlinks=False):
            if not entry.is_dir(follow_symlinks=False):
                found.left_out[name] = "a link" if entry.is_symlink() else "not a regular file"
        elif (largest := limit(name)) is not None:
            size = entry.stat(follow_symlinks=False).st_size
            total += size
            if size > largest:
                found.left_out[name] = f"larger than {largest // _MIB} MiB"
            else:
                found.files[name] = size
        if count > _MOST or total > _MOST_BYTES:
            raise ReadtrackError(
                f"{root} has more than {_MOST:,} files or {_MOST_BYTES >> 30} GiB, so it is not a home."
            )
    found.files = dict(sorted(found.files.items()))
    found.code = [name for name in found.files if is_code(name)]
    return found


def _walk(folder: Path, depth: int = 1) -> Iterator[os.DirEntry[str]]:
    """Every name that a home may contain, without hidden files and caches. Links are not followed."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            if depth == 1 and entry.name not in _LARGEST:
                continue
            yield entry
            if entry.is_dir(follow_symlinks=False) and depth < _DEEPEST:
                yield from _walk(Path(entry.path), depth + 1)
