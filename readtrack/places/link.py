"""Connections to an agent: through ssh, as a child process on this machine, or through a Dask scheduler."""

from __future__ import annotations

import json
import os
import secrets
import select
import shlex
import subprocess
import sys
import time
from collections import deque
from typing import Any, Protocol

from readtrack import __version__, interpreter
from readtrack.errors import NotAvailableError
from readtrack.places import answers
from readtrack.places.errors import Refused, Unreachable
from readtrack.places.place import Place
from readtrack.text import one_line

_GREETING = 30.0  # seconds until the agent's first output; a login shell may be slow
_ANSWER = 60.0  # seconds for an answer
_SSH = (
    *("ssh", "-T", "-e", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)


class Link(Protocol):
    """A connection for one request at a time.

    `call` raises Unreachable, or Refused with the message from the other machine.
    """

    def call(self, request: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]: ...

    def close(self) -> None: ...


def connect(place: Place) -> Link:
    """Connect to a place. Raises Unreachable, Refused, or NotAvailableError if an extra is missing."""
    if place.kind == "dask":
        try:
            from readtrack.places.dask import DaskLink
        except ModuleNotFoundError as error:
            if error.name not in ("dask", "distributed"):
                raise
            raise NotAvailableError(
                f"the place {place.name} needs Dask: {interpreter.install_command('dask', sys.executable)}"
            ) from None
        return DaskLink(place)
    return StreamLink(command(place))


def command(place: Place) -> list[str]:
    """The command that starts an agent at the place. `StreamLink` adds the mark to it."""
    # -P: do not import from the folder that the agent starts in.
    far = [place.python, "-u", "-P", "-m", "readtrack.places.agent", place.home]
    if not place.host:
        return far
    # One line that sh, bash, fish and tcsh parse in the same way; ~ is expanded by the remote shell.
    words = [_quoted(word) for word in far]
    return [*_SSH, "--", place.host, "exec " + " ".join(words)]


def _quoted(word: str) -> str:
    head, slash, rest = word.partition("/")
    return head + slash + shlex.quote(rest) if head == "~" and rest else shlex.quote(word)


class StreamLink:
    """An agent at the end of a pipe.

    Raises Unreachable or Refused if it cannot be reached.
    """

    def __init__(self, command: list[str]) -> None:
        mark = secrets.token_hex(8)
        environment = {name: value for name, value in os.environ.items() if name != "READTRACK_RUN"}
        try:
            self._child = subprocess.Popen(
                [*command[:-1], f"{command[-1]} {mark}"] if command[0] == "ssh" else [*command, mark],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment,
                start_new_session=True,  # Ctrl-C must reach readtrack only
            )
        except OSError as error:
            raise Refused(f"{command[0]}: {error.strerror}.") from error
        self._buffer = b""
        self._said: deque[bytes] = deque(maxlen=20)  # recent output on stderr
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)  # the other side might not be reading
        try:
            self._greet(f"\n{mark}\n".encode())
            self.hello, _ = self.call({"do": "hello"})
        except BaseException:  # also after an interrupt, so that no ssh is left behind
            self.close()
            raise

    def call(self, request: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        deadline = time.monotonic() + _ANSWER
        self._send(json.dumps({**request, "n": len(payload)}).encode() + b"\n" + payload, deadline)
        said, count = answers.parse(self._until(b"\n", deadline))
        data = self._take(count, deadline)
        return answers.check(request["do"], said), data

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # unwritten data are discarded

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._child.stdin is not None
        left = memoryview(data)
        try:
            while left:
                if not select.select([], [self._child.stdin], [], _remaining(deadline))[1]:
                    raise Unreachable("it did not accept the request in time")
                left = left[os.write(self._child.stdin.fileno(), left) :]
        except (OSError, ValueError):
            raise self._lost() from None

    def _greet(self, mark: bytes) -> None:
        self._buffer = b"\n"
        self._until(mark, time.monotonic() + _GREETING)

    def _until(self, end: bytes, deadline: float) -> bytes:
        while end not in self._buffer:
            if len(self._buffer) > answers.MAX_LINE:
                raise Refused(f"it sent more than {answers.MAX_LINE >> 20} MiB without the end of a line.")
            self._fill(deadline)
        line, _, self._buffer = self._buffer.partition(end)
        return line

    def _take(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._fill(deadline)
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _fill(self, deadline: float) -> None:
        """Read more output. stderr is read too, for error messages and so that its pipe never fills."""
        out, err = self._child.stdout, self._child.stderr
        assert out is not None
        assert err is not None
        ready, _, _ = select.select([out, err], [], [], _remaining(deadline))
        if not ready:
            raise Unreachable("no answer in time")
        if err in ready and (said := os.read(err.fileno(), 65536)):
            self._said.append(said)
        if out in ready:
            data = os.read(out.fileno(), 1 << 20)
            if not data:
                raise self._lost()
            self._buffer += data

    def _lost(self) -> Exception:
        """Why the agent has gone. Exit code 255 comes from ssh itself, any other from the remote side."""
        try:
            code = self._child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            code = None
        if self._child.stderr is not None and not self._child.stderr.closed:
            os.set_blocking(self._child.stderr.fileno(), False)
            self._said.append(self._child.stderr.read() or b"")
        text = b"".join(self._said).decode("utf-8", "replace")
        last = one_line(text.strip().rpartition("\n")[2])
        if code == 127 or "No such file" in last:
            return Refused(f"there is no such Python there ({last}). Set python: in places.yaml.")
        if code == 2 and "unknown option" in text.lower():
            return Refused("the Python there is older than 3.11. Set python: in places.yaml.")
        if "No module named" in last:
            return Refused(
                f"readtrack is not installed there ({last}). Run this there, in a clone of readtrack "
                f"{__version__}: python -m pip install '.[run]'"
            )
        if code == 1 and "Error" in last:
            return Refused(last)
        return Unreachable(last or "the connection was lost")


def _remaining(deadline: float) -> float:
    """Remaining seconds. Raises Unreachable if there are none, even if data keep arriving."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise Unreachable("no answer in time")
    return left
