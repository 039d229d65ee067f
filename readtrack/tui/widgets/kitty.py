"""Shows pictures in full resolution in terminals with Kitty's graphics protocol (Kitty, Ghostty).

The picture is sent once with a number. The page then contains placeholder characters: their colour encodes
the number, and their first combining mark encodes the line of the picture. The terminal replaces them with
pixels, even when the page scrolls. See "Unicode placeholders" in the protocol's documentation.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

from textual.color import Color
from textual.content import Content
from textual.style import Style

if TYPE_CHECKING:
    from PIL.Image import Image

_PLACEHOLDER = "\U0010eeee"
# The protocol's combining marks for 0, 1, 2 and so on, enough for the lines of a picture.
_ACCENTS = (
    "\u0305\u030d\u030e\u0310\u0312\u033d\u033e\u033f\u0346\u034a\u034b\u034c\u0350\u0351\u0352\u0357"
    "\u035b\u0363\u0364\u0365\u0366\u0367\u0368\u0369\u036a\u036b\u036c\u036d\u036e\u036f"
)
_FIRST = (0, 28)  # Kitty's first version with placeholders
_CHUNK = 4096  # bytes of base64 in one message
_CELL = 10  # pixels per column; small pictures are enlarged so that their pixels stay sharp


def is_spoken() -> bool:
    """Whether the terminal identifies itself as one of these. Behind tmux or screen it does not.

    Call it in a thread. It runs the `kitty` program to get its version, because older versions draw boxes.
    """
    if os.environ.get("TMUX") or os.environ.get("STY") or os.environ.get("NO_COLOR"):
        return False
    terminal = f"{os.environ.get('TERM', '')} {os.environ.get('TERM_PROGRAM', '')}".lower()
    return "ghostty" in terminal or ("kitty" in terminal and _kitty_version() >= _FIRST)


@cache
def _kitty_version() -> tuple[int, ...]:
    """Kitty's version; () without the program, for example over ssh."""
    try:
        said = subprocess.run(["kitty", "--version"], capture_output=True, text=True, timeout=2).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


def lines(image: Image, columns: int, height: int, send: Callable[[str], None]) -> list[Content]:
    """Placeholder lines for `image` in the given size. The picture itself is passed to `send`."""
    from PIL.Image import Resampling

    factor = -(-columns * _CELL // image.width)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
    file = BytesIO()
    image.save(file, "PNG")
    data = file.getvalue()
    number = zlib.crc32(data + f"{columns} {height}".encode()) & 0xFFFFFF or 1
    send(_messages(number, columns, height, data))
    colour = Style(foreground=Color(number >> 16, number >> 8 & 0xFF, number & 0xFF))
    first = _PLACEHOLDER + "{}" + _ACCENTS[0]  # line, and column 0; the other columns follow
    return [
        Content.styled(first.format(accent) + _PLACEHOLDER * (columns - 1), colour)
        for accent in _ACCENTS[:height]
    ]


def _messages(number: int, columns: int, height: int, data: bytes) -> str:
    """Messages that transmit (a=T) a PNG (f=100) for placeholders (U=1) without a reply (q=2)."""
    body = base64.standard_b64encode(data).decode("ascii")
    chunks = [body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK)]
    head = f"a=T,U=1,f=100,t=d,q=2,i={number},c={columns},r={height},"
    said = []
    for index, chunk in enumerate(chunks):
        more = int(index < len(chunks) - 1)
        said.append(f"\x1b_G{head if index == 0 else ''}m={more};{chunk}\x1b\\")
    return "".join(said)
