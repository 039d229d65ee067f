"""Images as lines of half blocks, with two pixels per character, or in Kitty's protocol.

Decoding is slow compared with drawing, so call `load` in a thread. Pillow is imported only when a picture is
drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.color import Color
from textual.content import Content, Span
from textual.style import Style

from readtrack.tui.widgets import kitty

if TYPE_CHECKING:
    from PIL.Image import Image

_COMFORTABLE = 48  # columns up to which a small image is enlarged
_TALLEST = 60  # pixels: 30 lines
_LARGEST = 40_000_000  # pixels
_SHARPEST = 1600  # pixels of a side that are sent to the terminal
_RAMP = " .:-=+*#%@"


def load(
    path: Path, columns: int, *, ascii_only: bool = False, send: Callable[[str], None] | None = None
) -> list[Content]:
    """The lines of an image, at most `columns` wide; a line of text if it cannot be shown.

    send  writes to a terminal that shows pictures in full resolution; None for other terminals
    """
    try:
        whole = opened(path)
        pixels = _fitted(whole, columns)
        if send is not None and not ascii_only:
            whole.thumbnail((_SHARPEST, _SHARPEST))
            return kitty.lines(whole, pixels.width, -(-pixels.height // 2), send)
    except Exception as error:  # an image decoder may raise anything
        return [Content(f"cannot be shown: {error}")]
    return _ramp(pixels) if ascii_only else _half_blocks(pixels)


def opened(path: Path) -> Image:
    """The image of a PNG file in RGB. Raises ValueError if it is too large, and any error of the decoder."""
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > _LARGEST:
            raise ValueError(f"too large to show here: {image.width} × {image.height} pixels")
        return image.convert("RGB")


def _fitted(image: Image, columns: int) -> Image:
    """The image resized to fit in view; small images are enlarged by an integer factor."""
    from PIL.Image import Resampling

    width, height = image.size
    scale = min(columns / width, _TALLEST / height)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return image.resize(size, Resampling.BOX)
    factor = max(1, int(min(scale, _COMFORTABLE / width)))
    return image.resize((width * factor, height * factor), Resampling.NEAREST)


def _half_blocks(image: Image) -> list[Content]:
    width, height = image.size
    data = image.tobytes()

    def colour(x: int, y: int) -> tuple[int, int, int] | None:
        at = (y * width + x) * 3
        return (data[at], data[at + 1], data[at + 2]) if y < height else None

    lines = []
    for y in range(0, height, 2):
        spans: list[Span] = []
        previous: tuple[object, object] | None = None
        for x in range(width):
            upper, lower = colour(x, y), colour(x, y + 1)
            if (upper, lower) == previous:
                spans[-1] = Span(spans[-1].start, x + 1, spans[-1].style)
            else:
                spans.append(Span(x, x + 1, _style(upper, lower)))
            previous = upper, lower
        lines.append(Content("▀" * width, spans))
    return lines


def _style(upper: tuple[int, int, int] | None, lower: tuple[int, int, int] | None) -> Style:
    return Style(
        foreground=Color(*upper) if upper else None,
        background=Color(*lower) if lower else None,
    )


def _ramp(image: Image) -> list[Content]:
    width, height = image.size
    grey = image.convert("L").resize((width, max(1, height // 2))).tobytes()
    rows = [grey[at : at + width] for at in range(0, len(grey), width)]
    return [Content("".join(_RAMP[value * len(_RAMP) // 256] for value in row)) for row in rows]
