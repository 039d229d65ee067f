"""Extract text from PDFs. They are untrusted, so a child process with limited time and memory parses them.

A PDF that the child cannot read is recorded in cache/unreadable.json until the file changes, so that it
delays only one search.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from readtrack.errors import ReadtrackError
from readtrack.fulltext.pdf_child import DAMAGED, TOO_LARGE
from readtrack.home import Home, write_text

DEADLINE = 30.0  # seconds for one PDF
_MAX_ANSWER = 64 * 1024 * 1024  # bytes; above the child's own limit on text
_POLL = 0.1
_TOO_SLOW = "could not be read in time"
_cancel: ContextVar[threading.Event | None] = ContextVar("cancel", default=None)


class UnreadableError(ReadtrackError):
    """The child could not read the PDF. `reason` completes the sentence "the PDF ..."."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}. `readtrack doctor` suggests a fix.")
        self.reason = reason


class ExtractionCancelled(Exception):
    """The event of `cancelled_by` was set."""


@contextmanager
def cancelled_by(event: threading.Event) -> Iterator[None]:
    """Within the block and in this thread, reading raises ExtractionCancelled soon after `event` is set."""
    token = _cancel.set(event)
    try:
        yield
    finally:
        _cancel.reset(token)


def page_count(home: Home, path: Path, seconds: float = DEADLINE) -> int:
    """Number of pages, at most 5,000. Raises UnreadableError, ExtractionCancelled."""
    return int(_read(home, "count", path, seconds)[0])


def pages(home: Home, path: Path, seconds: float = DEADLINE) -> list[tuple[int, str]]:
    """The text of each page with text, and its number from 1. Raises UnreadableError, ExtractionCancelled."""
    return [(int(number), str(text)) for number, text in _read(home, "pages", path, seconds)]


def stamp(path: Path) -> str:
    """A string that changes when the file changes."""
    try:
        status = path.stat()
    except OSError:
        return "gone"
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


def _read(home: Home, what: str, path: Path, seconds: float) -> list[Any]:
    now, known = stamp(path), _remembered(home)
    if known.get(path.name, {}).get("stamp") == now:
        raise UnreadableError(path, known[path.name]["reason"])
    answer, reason = _child.ask(what, path, seconds)
    if reason is not None:
        _remember(home, path, now, reason)
        raise UnreadableError(path, reason)
    return answer


# Unreadable files


def _remembered(home: Home) -> dict[str, dict[str, str]]:
    try:
        known = json.loads((home.cache / "unreadable.json").read_text(encoding="utf-8"))
        return {
            str(name): {"stamp": str(one["stamp"]), "reason": str(one["reason"])}
            for name, one in known.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _remember(home: Home, path: Path, now: str, reason: str) -> None:
    known = {name: one for name, one in _remembered(home).items() if (home.pdfs / name).exists()}
    known[path.name] = {"stamp": now, "reason": reason}
    with suppress(OSError, ReadtrackError):  # the home is not writable: the next search tries again
        write_text(home.ensure(home.cache) / "unreadable.json", json.dumps(known, indent=1) + "\n")


# The child process


class _Child:
    """Reads one PDF at a time. The process starts on demand, and again after a crash or a timeout."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, what: str, path: Path, seconds: float) -> tuple[list[Any], str | None]:
        """The answer, and the reason why the PDF cannot be read, or None."""
        question = json.dumps([what, str(path.absolute()), seconds]).encode() + b"\n"
        with self._turn():
            answer = self._once(question, seconds)
            # None: the idle child was exiting when the request arrived.
            answer = answer or self._once(question, seconds)
        return answer or ([], DAMAGED)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        while not self._lock.acquire(timeout=_POLL):
            _check_cancelled()
        try:
            yield
        finally:
            self._lock.release()

    def _once(self, question: bytes, seconds: float) -> tuple[list[Any], str | None] | None:
        _check_cancelled()
        if self._process is None or self._process.poll() is not None:
            self._process = _start()
        process = self._process
        answer: list[Any] = []
        try:
            assert process.stdin
            with suppress(BrokenPipeError):
                process.stdin.write(question)
            for line in _lines(process, time.monotonic() + seconds):
                if line is None or isinstance(line, str):
                    return answer, line
                answer.append(line)
        except _FailedError as failed:
            self._end()
            return answer, str(failed)
        except BaseException:  # Ctrl+C, too, leaves no child process
            self._end()
            raise
        code = self._end()
        return None if code == 0 and not answer else (answer, _reason(code))

    def _end(self) -> int:
        assert self._process
        process, self._process = self._process, None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe
            pipe.close()
        return process.wait()


class _FailedError(Exception):
    """Raised if the child must be killed. The message says why the current PDF cannot be read."""


def _start() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "readtrack.fulltext.pdf_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # Ctrl+C is for the parent, which then ends the child
    )
    threading.Thread(target=process.wait, daemon=True).start()  # avoids a zombie when the child exits
    return process


def _lines(process: subprocess.Popen[bytes], end: float) -> Iterator[Any]:
    """The child's output, line by line, until it ends. Raises _FailedError, ExtractionCancelled."""
    assert process.stdout
    rest, size = b"", 0
    while True:
        _check_cancelled()
        if time.monotonic() > end:
            raise _FailedError(_TOO_SLOW)
        if not select.select([process.stdout], [], [], _POLL)[0]:
            continue
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            return
        size += len(data)
        if size > _MAX_ANSWER:
            raise _FailedError(TOO_LARGE)
        *whole, rest = (rest + data).split(b"\n")
        yield from map(json.loads, whole)


def _reason(code: int) -> str:
    """Why the child exited. When out of memory, pdfium aborts or traps."""
    if code == -signal.SIGXCPU:
        return _TOO_SLOW
    return TOO_LARGE if code in (-signal.SIGABRT, -signal.SIGTRAP, -signal.SIGILL) else DAMAGED


def _check_cancelled() -> None:
    event = _cancel.get()
    if event is not None and event.is_set():
        raise ExtractionCancelled


_child = _Child()
