"""Opening a file with the program that the system has for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def show(path: Path) -> bool:
    """Open `path` in the system's viewer, which goes on by itself; False if there is none that could."""
    command = _command()
    if command is None:
        return False
    try:
        subprocess.Popen(
            [*command, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True


def _command() -> list[str] | None:
    if sys.platform == "darwin":
        return ["open"]
    found = shutil.which("xdg-open")
    # Without a display xdg-open would start a browser in the terminal.
    return [found] if found and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) else None
