"""External programs: a viewer or browser, and the reader's editor. They must not draw over the app."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from readtrack.errors import ReadtrackError


def open_with_system(address: str | Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Open a web address or file with the desktop. Returns False if there is no desktop, as on a server."""
    opener = _opener(environment)
    if opener is None:
        return False
    try:
        # Not `webbrowser`, which may start a text browser inside the app's terminal.
        subprocess.Popen(
            [opener, str(address)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True


def _opener(environment: Mapping[str, str]) -> str | None:
    if sys.platform == "darwin":
        return shutil.which("open")
    # Without a display xdg-open would start a browser in the terminal.
    if environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"):
        return shutil.which("xdg-open")
    return None


def usual_editor() -> list[str]:
    """An installed editor, used if the reader has not chosen one, or an empty list."""
    found = next((path for name in ("nano", "vim", "vi") if (path := shutil.which(name))), None)
    return [found] if found else []


def at_line(command: list[str], line: int) -> list[str]:
    """The argument with which an editor opens a file at a line; empty for unknown editors."""
    name = Path(command[0]).name
    return [f"+{line}"] if name in ("vi", "vim", "nvim", "nano", "emacs", "kak", "micro", "ne") else []


def editor(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The reader's editor as a command, empty if none is set. Raises ReadtrackError if it is malformed."""
    for name in ("VISUAL", "EDITOR"):
        line = environment.get(name, "").strip()
        if line:
            try:
                return shlex.split(line)
            except ValueError as error:
                raise ReadtrackError(f"{name} is {line!r}, which has an unclosed quotation mark.") from error
    return []
