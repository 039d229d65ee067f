"""Compares the app with a minimal app of Textual's own widgets, in turn on the same terminal."""

from __future__ import annotations

import fcntl
import gc
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from readtrack.home import Home
from readtrack.library import Library
from readtrack.tui import kept
from readtrack.tui.app import ReadtrackApp

MINIMAL = [sys.executable, str(Path(__file__).with_name("minimal_app.py"))]
OURS = [sys.executable, "-m", "readtrack"]
ROUNDS = 7
KEYS, PER_SECOND = 60, 20
DOWN = {"minimal": b"\x1b[B", "ours": b"j"}
SEEN = {"minimal": b"Details of paper 0", "ours": b"Stochastic"}  # in the details, which are complete by then


class Terminal:
    """A program in a terminal of 120 by 40 characters."""

    def __init__(self, command: list[str]) -> None:
        self.began = time.monotonic()
        self.pid, self._leader = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"})
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))

    def read(self, seconds: float, until: bytes = b"\0") -> bytes:
        """The program's output within `seconds`, or until it contains `until`."""
        written, end = b"", time.monotonic() + seconds
        while until not in written and (left := end - time.monotonic()) > 0:
            if select.select([self._leader], [], [], left)[0]:
                written += os.read(self._leader, 65536)
        return written

    def press(self, key: bytes) -> None:
        os.write(self._leader, key)

    def worked(self) -> float:
        """CPU seconds so far."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._leader)


@contextmanager
def opened(which: str) -> Iterator[Terminal]:
    """The app or the minimal one, as soon as list and details are shown."""
    terminal = Terminal(OURS if which == "ours" else MINIMAL)
    try:
        assert SEEN[which] in terminal.read(30, SEEN[which])
        yield terminal
    finally:
        terminal.close()


@pytest.fixture(autouse=True)
def _bytecode_is_kept(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep bytecode, as on a reader's machine from the second start on."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "bytecode"))
    home.ensure(home.cache)
    kept.keep_chosen(home)  # otherwise the keys go to the dialog of the first start
    for which in ("ours", "minimal"):
        with opened(which) as terminal:
            terminal.read(1)


@pytest.mark.timing
def test_the_first_paint_compared_with_a_minimal_app() -> None:
    took: dict[str, list[float]] = {"minimal": [], "ours": []}
    for _ in range(ROUNDS):
        for which, seconds in took.items():
            with opened(which) as terminal:
                seconds.append(time.monotonic() - terminal.began)
    ours, minimal = statistics.median(took["ours"]), statistics.median(took["minimal"])
    print(
        f"first paint: {ours * 1e3:.0f} ms, a minimal app {minimal * 1e3:.0f} ms, {ours / minimal:.2f} times"
    )
    assert ours <= 1.3 * minimal


@pytest.mark.timing
def test_j_held_down_compared_with_a_minimal_app() -> None:
    took: dict[str, list[float]] = {"minimal": [], "ours": []}
    for _ in range(3):
        for which, seconds in took.items():
            with opened(which) as terminal:
                terminal.read(1)  # output after the first paint
                before = terminal.worked()
                for _ in range(KEYS):
                    terminal.press(DOWN[which])
                    terminal.read(1 / PER_SECOND)
                seconds.append((terminal.worked() - before) / KEYS)
    ours, minimal = statistics.median(took["ours"]), statistics.median(took["minimal"])
    print(f"a key: {ours * 1e3:.1f} ms, a minimal app {minimal * 1e3:.1f} ms, {ours / minimal:.2f} times")
    assert ours <= 1.3 * minimal


@pytest.mark.timing
async def test_a_letter_in_the_filter_of_ten_thousand_papers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU time of the app's own thread until the matches are in list and details, ready to be drawn."""
    home = Home(tmp_path / "big")
    make = [sys.executable, "tests/big_home.py", str(home.root), "--runs", "0"]
    subprocess.run(make, check=True, cwd=Path(__file__).parents[2], timeout=120)
    kept.keep_chosen(home)
    monkeypatch.setattr(Library, "_plugins", {})  # other tests look for plugins each time
    took: dict[str, list[float]] = {}
    app = ReadtrackApp(Library.open(home))
    async with app.run_test(size=(120, 40)) as pilot:
        await app.workers.wait_for_complete()  # the index is complete
        app.main.search.find("")
        gc.collect()
        gc.freeze()  # as the app does after its start
        for word in 3 * ("mat", "ser", "lex", "ton", "gra", "vin", "dal"):
            await pilot.press("slash")
            for typed in (word[:1], word[:2], word):
                began = time.thread_time()
                app.main.filter.value = typed
                app.main._narrow()
                took.setdefault(typed, []).append(1e3 * (time.thread_time() - began))
                await pilot.pause()
            await pilot.press("escape")
            await pilot.pause()
        gc.unfreeze()
    best = {typed: min(several) for typed, several in took.items()}  # other load only makes it longer
    for count in (1, 2, 3):
        print(
            f"letter {count}: {max(ms for typed, ms in best.items() if len(typed) == count):.1f} ms at most"
        )
    assert {typed: ms for typed, ms in best.items() if ms > 30} == {}
