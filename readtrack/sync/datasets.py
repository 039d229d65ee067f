"""Fetch a known data set: resumable, verified by SHA-256, complete or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from readtrack.datasets.catalogue import DataFile, DataSet
from readtrack.datasets.store import GROWTH, UNPACKED, DataSets, Stored, check_weights, unpacked, write_about
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.sync.client import Client
from readtrack.sync.clock import Clock
from readtrack.sync.faults import Fault
from readtrack.sync.files import RESERVE, disk_fault
from readtrack.sync.lock import exclusive
from readtrack.sync.throttle import HostThrottle
from readtrack.text import format_bytes

if TYPE_CHECKING:
    from readtrack.sync.transfer import ResponseHead

Progress = Callable[[str, int, int], None]  # file, bytes present, bytes of the whole file

_DEADLINE = 12 * 3600.0  # seconds for one file


def fetch(
    home: Home,
    known: DataSet,
    *,
    progress: Progress = lambda file, here, size: None,
    notice: Callable[[str], None] = lambda text: None,
    cancel: threading.Event | None = None,
    clock: Clock | None = None,
) -> Stored:
    """Fetch all files of `known` into the home.

    Data that arrived before an interruption are not fetched again. Raises NotAvailableError if a file could
    not be fetched, ReadtrackError if one does not match the catalogue, SyncCancelled.
    """
    cancel, clock = cancel or threading.Event(), clock or Clock()
    store = DataSets(home)
    with store.publishing(known.name) as part, exclusive(home) as state:
        _check_space(part, known)
        gate = HostThrottle(state / "requests.json", clock, cancel, frozenset())
        client = Client(gate, clock, cancel, notice=notice)
        try:
            for file in known.files:
                _fetch_file(client, part / file.name, file, progress)
        finally:
            client.close()
        check_weights(part, known)
        files = {file.name: (file.size, file.sha256) for file in known.files}
        if known.format in UNPACKED:
            notice(f"unpacking {known.name}")
            files = unpacked(part, known)
        return write_about(part, known.name, known.kind, known.format, "fetched", files)


def _check_space(folder: Path, known: DataSet) -> None:
    here = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    factor = 1 + GROWTH if known.format in UNPACKED else 1
    needed, free = factor * known.size - here + RESERVE, shutil.disk_usage(folder).free
    if free < needed:
        raise ReadtrackError(
            f"{known.name} needs {format_bytes(needed)} in {folder.parent}; {format_bytes(free)} are free."
        )


def _fetch_file(client: Client, path: Path, file: DataFile, progress: Progress) -> None:
    if path.exists() and path.stat().st_size == file.size and _digest(path) == file.sha256:
        progress(file.name, file.size, file.size)
        return
    fault: Fault | None = None
    for url in file.urls:
        try:
            client.get(url, _FileSink(path, file, progress))
            return
        except Fault as error:
            fault = error
            if error.kind in ("disk", "page"):
                break
    assert fault
    kind = ReadtrackError if fault.kind in ("disk", "page") else NotAvailableError
    raise kind(f"{file.name}: {fault}. Received data are kept; run the command again to continue.") from fault


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _FileSink:
    """Appends to `path`."""

    accept = "*/*"
    deadline = _DEADLINE

    def __init__(self, path: Path, file: DataFile, progress: Progress) -> None:
        self._path = path
        self._about = file
        self._progress = progress
        self._file: BinaryIO | None = None
        self._size = 0
        self.limit = file.size

    @property
    def start(self) -> int:
        """Bytes present; 0 if there are more than there should be."""
        size = self._path.stat().st_size if self._path.exists() else 0
        return size if size < self._about.size else 0

    def begin(self, head: ResponseHead) -> None:
        start = self.start
        begins = head.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if head.status == 206 and not begins:
            self._path.unlink(missing_ok=True)
            raise Fault("truncated", f"{self._about.name}: the server sent a different part than requested")
        self._close()
        try:
            self._file = self._path.open("ab" if head.status == 206 else "wb")
        except OSError as error:
            raise disk_fault(error, self._path.parent) from error
        self._size = start if head.status == 206 else 0
        self._progress(self._about.name, self._size, self._about.size)

    def write(self, data: bytes) -> None:
        assert self._file
        try:
            self._file.write(data)
        except OSError as error:
            raise disk_fault(error, self._path.parent) from error
        self._size += len(data)
        self._progress(self._about.name, self._size, self._about.size)

    def end(self) -> None:
        assert self._file
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_fault(error, self._path.parent) from error
        finally:
            self._close()
        found = _digest(self._path)
        if self._size < self._about.size:
            raise Fault(
                "truncated", f"only {format_bytes(self._size)} of {format_bytes(self._about.size)} arrived"
            )
        if self._size > self._about.size or found != self._about.sha256:
            self._path.unlink()
            raise Fault("page", f"its SHA-256 is {found[:16]}..., not {self._about.sha256[:16]}...")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
