"""The devices that a run can use. They come from `readtrack devices`, because the app never imports torch."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import TypeAlias

from readtrack.errors import ReadtrackError
from readtrack.text import one_line

# (name, description) of each device. "auto" uses the first.
Devices: TypeAlias = Sequence[tuple[str, str]]


class DeviceList:
    """`found` is None until `ask` has returned."""

    def __init__(self) -> None:
        self.found: Devices | None = None
        self._asking = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def ask(self) -> Devices:
        """The devices. Call it in a thread, because the first call takes seconds. Raises ReadtrackError with
        the child's message.
        """
        with self._asking:
            if self.found is None:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "readtrack", "devices", "--json"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                self.found = _listed(self._child)
            return self.found

    def leave(self) -> None:
        """Stop the child process when the app ends."""
        if self._child is not None:
            self._child.kill()


def _listed(child: subprocess.Popen[str]) -> Devices:
    listed, said = child.communicate()
    try:
        return [(str(one["name"]), one_line(str(one["description"]))) for one in json.loads(listed)]
    except (ValueError, TypeError, KeyError) as error:
        lines = said.strip().splitlines() or [f"it ended with exit code {child.returncode}"]
        raise ReadtrackError(one_line(lines[-1]).removeprefix("readtrack: ")) from error
