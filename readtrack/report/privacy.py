"""Private data that a report leaves out by default: file paths, names of machines, notes, tags."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable

from readtrack.text import one_line, plain

# An absolute path or one below a home folder: only the file's name is kept.
_PART = r"[^\s/\\:'\"<>|]+"
_FOLDERS = re.compile(rf"(?<![\w.:/~])(?:~\w*/(?:{_PART}/)*|/(?:{_PART}/)+|[A-Za-z]:[\\/](?:{_PART}[\\/])*)")
_SHORTEST = 3  # letters of a machine's name that is looked for in texts
_TOO_COMMON = {"localhost", "cpu", "cuda", "host"}


class Discretion:
    """Makes texts of records fit to be shown to others.

    hosts  names of machines and places that the texts must not have
    """

    def __init__(self, *, private: bool, hosts: Iterable[str] = ()) -> None:
        self.private = private
        here = socket.gethostname()
        self._hosts: set[str] = set()
        self._names = re.compile(r"(?!)")
        self.leave_out([*hosts, here, here.partition(".")[0]])

    def leave_out(self, names: Iterable[str]) -> None:
        """Take these names out of all texts from now on."""
        more = {name for name in names if len(name) >= _SHORTEST and name.casefold() not in _TOO_COMMON}
        if more <= self._hosts:
            return
        self._hosts |= more
        longest = sorted(self._hosts, key=len, reverse=True)
        self._names = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest))

    def line(self, text: object) -> str:
        """`text` on one line."""
        return one_line(self._left(str(text)))

    def block(self, text: object) -> str:
        """`text` with its lines."""
        return plain(self._left(str(text)))

    def _left(self, text: str) -> str:
        return text if self.private else self._names.sub("(machine)", _FOLDERS.sub("", text))
