"""log.txt, the output of a plugin, its libraries and its children. It is untrusted and has a size limit.

Standard output and error are the file itself, not a pipe, so nothing blocks without a reader, and output just
before a crash is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from readtrack import regular

HEAD = 512 * 1024
TAIL = 512 * 1024

_DUMP = re.compile(r"^(?:Current thread 0x|Timeout \()", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)


def trim(folder: Path) -> None:
    """Cut the middle out of a log that has outgrown its head and tail. Writers append at the new end.

    While the run is alive only its worker calls this, because concurrent calls would cut each other's text. A
    log that is not a regular file is left alone.
    """
    path = folder / "log.txt"
    try:
        if path.lstat().st_size <= HEAD + 2 * TAIL:
            return
        with os.fdopen(regular.descriptor(path, os.O_RDWR), "rb+") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(size - TAIL)
            tail = file.read(TAIL)
            file.truncate(HEAD)
        with os.fdopen(regular.descriptor(path, os.O_WRONLY | os.O_APPEND), "ab") as file:
            file.write(f"\n[... {size - HEAD - TAIL} bytes left out ...]\n".encode() + tail)
    except OSError:
        return  # the file is gone or not regular, or the disk is full; the log stays as it is


def tail(folder: Path, size: int = 8192) -> str:
    """The last `size` bytes of the log as text, from the start of a line."""
    try:
        with regular.reader(folder / "log.txt") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            cut = file.tell() > 0
            data = file.read(size)
    except OSError:
        return ""
    if cut:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace")


def last_place(folder: Path, plugin_folders: Iterable[str]) -> str:
    """`file:line (function)` of the innermost plugin frame in the log's last faulthandler dump, or "".

    The main thread comes last in a dump, or right after "Current thread".
    """
    text = tail(folder, 64 * 1024)
    starts = [match.start() for match in _DUMP.finditer(text)]
    roots = tuple(root.rstrip(os.sep) + os.sep for root in plugin_folders)
    for file, line, function in _FRAME.findall(text, starts[-1]) if starts else ():
        if file.startswith(roots):
            return f"{file}:{line} ({function})"
    return ""


def fatal_error(folder: Path) -> str:
    """faulthandler's name of the fatal error ("Segmentation fault"), or ""."""
    found = re.findall(r"^Fatal Python error: (.+)$", tail(folder, 64 * 1024), re.MULTILINE)
    return str(found[-1]) if found else ""


def deadline_struck(folder: Path) -> bool:
    """Whether the worker's last-resort timeout (see `worker`) ended the run."""
    return re.search(r"^Timeout \([0-9:.]+\)!$", tail(folder, 64 * 1024), re.MULTILINE) is not None
