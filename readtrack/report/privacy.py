"""Private data that a report leaves out by default: file paths, machine names, notes and tags."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable

from readtrack.text import one_line, plain

# Absolute paths and paths below a home folder are reduced to the file's name.
_PART = r"[^\s/\\:'\"<>|]+"
_FOLDERS = re.compile(rf"(?<![\w.:/~])(?:~\w*/(?:{_PART}/)*|/(?:{_PART}/)+|[A-Za-z]:[\\/](?:{_PART}[\\/])*)")
_SHORTEST = 3  # minimum length of a machine's name to search for in texts
_TOO_COMMON = {"localhost", "cpu", "cuda", "host"}


class Discretion:
    """Removes private data from texts of records.

    hosts  names of machines and places to remove
    """

    def __init__(self, *, private: bool, hosts: Iterable[str] = ()) -> None:
        self.private = private
        here = socket.gethostname()
        self._hosts: set[str] = set()
        self._names = re.compile(r"(?!)")
        self.leave_out([*hosts, here, here.partition(".")[0]])

    def leave_out(self, names: Iterable[str]) -> None:
        """Remove these names from all texts from now on."""
        more = {name for name in names if len(name) >= _SHORTEST and name.casefold() not in _TOO_COMMON}
        if more <= self._hosts:
            return
        self._hosts |= more
        longest = sorted(self._hosts, key=len, reverse=True)
        self._names = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest))

    def line(self, text: object) -> str:
        """`text` on one line, without private data."""
        return one_line(self._left(str(text)))

    def block(self, text: object) -> str:
        """`text` with its line breaks, without private data."""
        return plain(self._left(str(text)))

    def _left(self, text: str) -> str:
        return text if self.private else self._names.sub("(machine)", _FOLDERS.sub("", text))
