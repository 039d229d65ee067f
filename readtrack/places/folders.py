"""Folders for runs and code on the remote side, in its home.

elsewhere/code/HASH/                unpacked code
elsewhere/runs/RUN/                 job.json, lock, lease, done, ... (see `readtrack.places.shepherd`)
elsewhere/runs/RUN/attempts/NAME/   a home for one attempt
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from readtrack.home import Home

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_HASH = re.compile(r"[0-9a-f]{64}")


def root(home: str) -> Path:
    """The folder for runs that were sent to this home; an empty `home` is the default home."""
    return Home(home or None).root / "elsewhere"


def is_id(text: str) -> bool:
    """Whether `text` is a valid name of a run or an attempt, and so of a file."""
    return _ID.fullmatch(text) is not None


def run(root: Path, run_id: str) -> Path:
    """A run's folder. Raises ValueError for an invalid id."""
    if not is_id(run_id):
        raise ValueError(f"{run_id!r} is not a run")
    return root / "runs" / run_id


def code(root: Path, digest: str) -> Path:
    """The folder for code with this hash. Raises ValueError for an invalid hash."""
    if not _HASH.fullmatch(digest):
        raise ValueError(f"{digest!r} is not a hash")
    (root / "code").mkdir(parents=True, exist_ok=True)
    return root / "code" / digest


def attempts(run: Path) -> list[str]:
    """The names of a run's attempts, oldest first."""
    try:
        return sorted(name for name in os.listdir(run / "attempts") if not name.startswith("."))
    except FileNotFoundError:
        return []


def attempt(run: Path, name: str) -> Path:
    """The run's folder inside the home of one attempt. Raises ValueError for an invalid name."""
    if not is_id(name):
        raise ValueError(f"{name!r} is not an attempt")
    runs = run / "attempts" / name / "runs"
    return next((path for path in runs.glob("*") if path.is_dir()), runs / "none")
