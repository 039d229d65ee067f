"""Full-screen pictures in terminals with iTerm2's protocol."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from textual.app import SuspendNotSupported

from readtrack.tui.widgets import iterm


class Suspending:
    """An app that can lend the terminal, or one that cannot, as in a browser."""

    def __init__(self, can: bool = True) -> None:
        self.can, self.times = can, 0

    @contextmanager
    def suspend(self) -> Iterator[None]:
        if not self.can:
            raise SuspendNotSupported("no terminal")
        self.times += 1
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    image = Image.new("RGB", (6, 5))
    image.putdata([(x * 40, y * 50, 7) for y in range(5) for x in range(6)])
    image.save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """The output to an iTerm2 terminal whose reader has pressed enter."""
    for name in ("TMUX", "STY", "LC_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM_PROGRAM", "iTerm.app")
    written = StringIO()
    monkeypatch.setattr("sys.__stdin__", StringIO("\n"))
    monkeypatch.setattr("sys.__stdout__", written)
    return written


def test_the_terminal_gets_every_pixel_in_the_room_that_it_has(file: Path) -> None:
    found = re.fullmatch(r"\x1b\]1337;File=([^:]*):([A-Za-z0-9+/=]*)\a", iterm.message(file, 80, 22))
    assert found is not None
    keys = dict(pair.split("=") for pair in found[1].split(";"))
    data = base64.b64decode(found[2])
    assert keys == {
        "inline": "1",
        "preserveAspectRatio": "1",
        "size": str(len(data)),
        "width": "80",
        "height": "22",
    }
    shown = Image.open(BytesIO(data))
    assert shown.size == (6 * 266, 5 * 266)
    assert shown.resize((6, 5), Image.Resampling.NEAREST).tobytes() == Image.open(file).tobytes()


def test_it_stays_until_enter_and_leaves_the_screen_as_it_was(file: Path, terminal: StringIO) -> None:
    app: Any = Suspending()
    assert iterm.show(file, app)
    assert app.times == 1
    written = terminal.getvalue()
    assert written.startswith("\x1b[?1049h")
    assert written.endswith("enter goes back \x1b[?1049l")
    assert "]1337;File=inline=1" in written


def test_a_file_that_is_not_a_picture_is_not_shown(file: Path, terminal: StringIO) -> None:
    app: Any = Suspending()
    broken = file.with_name("b.png")
    broken.write_bytes(b"GIF89a")
    assert not iterm.show(broken, app)
    assert not iterm.show(file.with_name("none.png"), app)
    assert not iterm.show(file.with_suffix(".wav"), app)
    assert app.times == 0


def test_an_app_without_a_terminal_gives_an_error(file: Path, terminal: StringIO) -> None:
    app: Any = Suspending(can=False)
    assert not iterm.show(file, app)


@pytest.mark.parametrize(
    ("environment", "spoken"),
    [
        ({"TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM_PROGRAM": "WezTerm"}, True),
        ({"LC_TERMINAL": "iTerm2"}, True),  # ssh passes it on
        ({"LC_TERMINAL": "iTerm2", "TMUX": "/x"}, False),
        ({"TERM_PROGRAM": "iTerm.app", "STY": "1.x"}, False),
        ({"TERM_PROGRAM": "Apple_Terminal"}, False),
        ({}, False),
    ],
)
def test_only_terminals_that_speak_it_are_asked(environment: dict[str, str], spoken: bool) -> None:
    assert iterm.is_spoken(environment) is spoken
