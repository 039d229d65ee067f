"""Pictures in terminals that show full resolution."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from rich.cells import cell_len

from readtrack.tui.widgets import kitty, picture

PLACEHOLDER = "\U0010eeee"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    image = Image.new("RGB", (6, 5))
    image.putdata([(x * 40, y * 50, 7) for y in range(5) for x in range(6)])
    image.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_the_terminal_gets_every_pixel_once_and_the_page_their_places(file: Path) -> None:
    sent: list[str] = []
    lines = picture.load(file, 60, send=sent.append)
    # Enlarged eight times: 48 columns of one pixel each, and 40 pixels in height, two per line.
    assert [cell_len(line.plain) for line in lines] == [48] * 20
    assert all(line.plain.count(PLACEHOLDER) == 48 for line in lines)
    accents = [line.plain[1] for line in lines]
    assert len(set(accents)) == 20
    (message,) = sent
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", message)
    assert "".join(f"\x1b_G{head};{body}\x1b\\" for head, body in chunks) == message
    assert [head[-3:] for head, _ in chunks] == ["m=1"] * (len(chunks) - 1) + ["m=0"]
    keys = dict(pair.split("=") for pair in chunks[0][0].split(",") if pair)
    assert (keys["a"], keys["U"], keys["f"], keys["c"], keys["r"]) == ("T", "1", "100", "48", "20")
    shown = Image.open(BytesIO(base64.b64decode("".join(body for _, body in chunks))))
    factor = shown.width // 6
    assert shown.size == (6 * factor, 5 * factor)
    assert shown.resize((6, 5), Image.Resampling.NEAREST).tobytes() == Image.open(file).tobytes()
    # The placeholders' colour is the number of the picture.
    (colour,) = {span.style.foreground.rgb for line in lines for span in line.spans}
    assert int(keys["i"]) == colour[0] << 16 | colour[1] << 8 | colour[2]


def test_another_width_is_another_picture(file: Path) -> None:
    sent: list[str] = []
    for width in (60, 20):
        picture.load(file, width, send=sent.append)
    assert len({re.search(r"i=(\d+)", one)[1] for one in sent}) == 2  # type: ignore[index]


def test_half_blocks_are_used_without_colours_or_image_support(file: Path) -> None:
    sent: list[str] = []
    assert PLACEHOLDER not in picture.load(file, 60, ascii_only=True, send=sent.append)[0].plain
    assert PLACEHOLDER not in picture.load(file, 60)[0].plain
    assert sent == []


@pytest.mark.parametrize(
    ("names", "spoken"),
    [
        ({"TERM": "xterm-kitty", "VERSION": "kitty 0.28.1 created by"}, True),
        ({"TERM": "xterm-kitty", "VERSION": "kitty 0.26.5 created by"}, False),
        ({"TERM": "xterm-kitty", "VERSION": ""}, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, True),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, False),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, False),
    ],
)
def test_terminals_with_the_protocol(
    names: dict[str, str], spoken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "kitty"
    program.write_text(f"#!/bin/sh\necho {names.get('VERSION', 'kitty 1.0')}\n", encoding="utf-8")
    program.chmod(0o755)
    kitty._kitty_version.cache_clear()
    for name in ("TERM", "TERM_PROGRAM", "TMUX", "STY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert kitty.is_spoken() is spoken
