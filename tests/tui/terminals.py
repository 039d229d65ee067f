"""Runs readtrack in a real terminal: a separate tmux server with a command line and keys."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

TOYS = Path(__file__).parents[1] / "toys"
COMMAND = Path(sys.executable).with_name("readtrack")
DEADLINE = 240.0  # seconds; a program that takes longer hangs, even on a busy machine


def wait_for(condition: Callable[[], object], what: Callable[[], str]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what()}"
        time.sleep(0.03)


class Terminal:
    """A tmux server with readtrack, separate for each start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starts = 0

    @property
    def _socket(self) -> str:
        return str(self._folder / f"tmux-{self._starts}")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    def start(self, size: tuple[int, int] = (100, 30), *, alone: bool = False, **environment: str) -> None:
        """alone: without a shell, so that readtrack itself leads the terminal's session."""
        self._starts += 1
        surroundings = {
            "TERM": "tmux-256color",
            "COLORTERM": "truecolor",
            "LANG": "C.UTF-8",
            "PYTHONUTF8": "1",
            "OMP_NUM_THREADS": "1",
            "READTRACK_HOME": os.environ["READTRACK_HOME"],
            "READTRACK_PLUGIN_PATH": str(TOYS),
            "PYTHONPATH": str(TOYS / "light"),
            **environment,
        }
        pairs = " ".join(shlex.quote(f"{name}={value}") for name, value in surroundings.items())
        unset = "env -u EDITOR -u VISUAL -u COLUMNS -u LINES"
        line = f"{unset} {pairs} {shlex.quote(str(COMMAND))}"
        script = f"exec {line}" if alone else f"{line}; echo exit code $?; exec sleep 600"
        width, height = map(str, size)
        self._tmux("new-session", "-d", "-x", width, "-y", height, script)

    def keys(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p").rstrip("\n")

    def wait_for(self, text: str) -> str:
        wait_for(lambda: text in self.screen(), lambda: f"{text!r}; the screen is\n{self.screen()}")
        return self.screen()

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def app(self) -> psutil.Process:
        """The process of readtrack itself."""
        first = psutil.Process(int(self._tmux("display-message", "-p", "#{pane_pid}")))
        return next(one for one in [*first.children(), first] if str(COMMAND) in one.cmdline())

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False)
