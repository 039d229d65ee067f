"""Shows a picture in full resolution in terminals with iTerm2's protocol (iTerm2, WezTerm).

These terminals draw a picture at the cursor, independently of the app's page, which may scroll. Therefore the
picture gets the whole terminal until the reader closes it. See "Inline Images Protocol" in iTerm2's
documentation.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from readtrack.tui.suspension import suspended
from readtrack.tui.widgets.picture import opened

if TYPE_CHECKING:
    from readtrack.tui.shell import Shell

_SHARP = 1600  # pixels of the longer side; small pictures are enlarged so that their pixels stay sharp
_OTHER_SCREEN, _BACK = "\x1b[?1049h\x1b[2J\x1b[H", "\x1b[?1049l"


def is_spoken(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal identifies itself as one of these, also through ssh. Behind tmux or screen it does
    not.
    """
    if environment.get("TMUX") or environment.get("STY"):
        return False
    named = environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm")
    return named or environment.get("LC_TERMINAL") == "iTerm2"


def show(path: Path, shell: Shell) -> bool:
    """Show the picture until the reader presses enter. Return False in other terminals or if there is no
    picture.
    """
    if path.suffix != ".png" or not is_spoken():
        return False
    columns, lines = shutil.get_terminal_size()
    try:
        picture = message(path, columns, lines - 2)
    except Exception:  # an image decoder may raise anything
        return False
    try:
        with suspended(shell):
            assert sys.__stdout__ is not None
            sys.__stdout__.write(f"{_OTHER_SCREEN}{picture}\r\nenter goes back ")
            sys.__stdout__.flush()
            assert sys.__stdin__ is not None
            sys.__stdin__.readline()
            sys.__stdout__.write(_BACK)
            sys.__stdout__.flush()
    except SuspendNotSupported:
        return False
    return True


def message(path: Path, columns: int, lines: int) -> str:
    """The escape sequence that draws a PNG as large as fits. Raises the errors of `opened`."""
    from PIL.Image import Resampling

    whole = opened(path)
    factor = max(1, _SHARP // max(whole.size))
    whole = whole.resize((whole.width * factor, whole.height * factor), Resampling.NEAREST)
    file = BytesIO()
    whole.save(file, "PNG")
    data = file.getvalue()
    keys = f"inline=1;preserveAspectRatio=1;size={len(data)};width={columns};height={lines}"
    return f"\x1b]1337;File={keys}:{base64.standard_b64encode(data).decode('ascii')}\a"
