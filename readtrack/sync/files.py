"""PDFs on disk: verified, published atomically, each with a record of its origin.

    pdfs/<id>.pdf     appears only when complete
    pdfs/<id>.json    its record, prepared before the PDF appears and put in place afterwards

The reader's own files and changes are never lost: a PDF without a record, or attached by hand, is left alone,
and one that does not match its record is kept next to the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing, write_text
from readtrack.sync.client import DEADLINE
from readtrack.sync.faults import Fault, looks_like_page, page_title
from readtrack.text import format_bytes

if TYPE_CHECKING:
    from readtrack.sync.transfer import ResponseHead

Origin = Literal["fetched", "attached", "found", "withdrawn"]

LIMIT = 200 * 1024 * 1024  # size limit of one PDF in bytes
RESERVE = 32 * 1024 * 1024  # free disk space in bytes that a sync leaves
_HEAD, _TAIL = 1024, 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PdfRecord:
    """The origin of a PDF. `wanted`: the requested version, if it differs from `version`.

    Origin "withdrawn" means that no PDF is offered; "found", that the reader put the file here.
    """

    origin: Origin
    source: str = ""  # the source as in the list: an arXiv id, a link
    version: int | None = None
    wanted: int | None = None
    url: str = ""
    size: int = 0
    sha256: str = ""
    at: str = ""


class UserFileConflictError(Exception):
    """The reader has put their own PDF there; it stays."""


class Pdfs:
    def __init__(self, home: Home) -> None:
        self.folder = home.pdfs
        self._home = home

    def path(self, paper_id: str) -> Path:
        return self.folder / f"{paper_id}.pdf"

    def record(self, paper_id: str) -> PdfRecord | None:
        return _read(self._record_path(paper_id))

    def save_record(self, paper_id: str, record: PdfRecord) -> None:
        """Save the record. Raises Fault "disk"."""
        try:
            self._write(self._record_path(paper_id), record)
        except OSError as error:
            raise disk_fault(error, self.folder) from error

    def is_changed(self, paper_id: str) -> bool:
        """Whether the PDF does not match its record. Reads all of it. Raises Fault "disk"."""
        record, path = self.record(paper_id), self.path(paper_id)
        try:
            return record is None or not path.is_file() or digest(path) != record.sha256
        except OSError as error:
            raise Fault("disk", f"could not read {path}: {error.strerror}") from error

    def publish(self, paper_id: str, fill: Callable[[Path], PdfRecord]) -> Path | None:
        """Let `fill` write a temporary file, and make it the paper's PDF with the record that `fill` returns.

        Returns the path of the old PDF, if a sync could not fetch it again. Raises what `fill` raises, Fault
        "disk", and UserFileConflictError if the reader attached a PDF meanwhile. An error changes nothing.
        """
        final, ready = self.path(paper_id), self.folder / f".{paper_id}.record"
        before = self.record(paper_id)
        try:
            with ExitStack() as stack:
                with replacing(final) as part:
                    record = fill(part)
                    stack.enter_context(self._lock())
                    if self.record(paper_id) != before and record.origin == "fetched":
                        raise UserFileConflictError
                    kept = self._keep(paper_id)
                    self._write(ready, record)
                ready.replace(self._record_path(paper_id))
                return kept
        except OSError as error:
            raise disk_fault(error, self.folder) from error

    def remove_partial_files(self) -> None:
        """Clean up after killed processes. Only for the holder of the sync lock. Raises ReadtrackError."""
        try:
            with self._lock():
                for ready in self.folder.glob(".*.record"):
                    self._finish(ready)
                for folder in (self.folder, self._home.metadata):
                    for part in folder.glob(".*.part"):
                        if not _is_in_use(part):
                            part.unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def _finish(self, ready: Path) -> None:
        """Complete or discard a record whose process was killed while it published the PDF."""
        paper_id = ready.name[1 : -len(".record")]
        record, path = _read(ready), self.path(paper_id)
        if record is not None and path.is_file() and digest(path) == record.sha256:
            ready.replace(self._record_path(paper_id))
        else:
            ready.unlink()

    def adopt(self, paper_id: str) -> None:
        """Register a PDF without a record as the reader's own. Raises Fault "page" if it is not a PDF."""
        path = self.path(paper_id)
        if problem := incompleteness_of(path):
            raise problem
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        record = PdfRecord(origin="found", size=path.stat().st_size, sha256=digest(path), at=stamp)
        self.save_record(paper_id, record)

    def _record_path(self, paper_id: str) -> Path:
        return self.folder / f"{paper_id}.json"

    @staticmethod
    def _write(path: Path, record: PdfRecord) -> None:
        write_text(path, json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n")

    def _lock(self) -> AbstractContextManager[object]:
        return self._home.lock("pdfs")

    def _keep(self, paper_id: str) -> Path | None:
        """Keep a second name for a complete PDF that a sync could not fetch again."""
        path, record = self.path(paper_id), self.record(paper_id)
        if not path.is_file():
            return None
        if record is not None and record.origin == "fetched" and not self.is_changed(paper_id):
            return None
        if incompleteness_of(path) is not None:
            return None
        number = 1
        while (kept := self.folder / f"{paper_id}.kept-{number}.pdf").exists():
            number += 1
        try:
            os.link(path, kept)
        except OSError:  # not every file system has hard links
            shutil.copyfile(path, kept)
        return kept


def _read(path: Path) -> PdfRecord | None:
    try:
        return PdfRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


class PdfSink:
    """Writes a body to `part`; `progress` gets the bytes received and expected (if known)."""

    accept = "application/pdf,*/*;q=0.5"
    limit = LIMIT
    deadline = DEADLINE
    start = 0

    def __init__(self, part: Path, progress: Callable[[int, int | None], None]) -> None:
        self._part = part
        self._progress = progress
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._checked = False
        self._head: ResponseHead | None = None
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def begin(self, head: ResponseHead) -> None:
        self.close()
        self._head, self.size, self._checked = head, 0, False
        self._hash = hashlib.sha256()
        need = (head.length or 0) + RESERVE
        try:
            free = shutil.disk_usage(self._part.parent).free
            self._file = self._part.open("wb+")
        except OSError as error:
            raise disk_fault(error, self._part.parent) from error
        if free < need:
            raise Fault("disk", _full(self._part.parent, need))
        self._progress(0, head.length)

    def write(self, data: bytes) -> None:
        assert self._file
        assert self._head
        try:
            self._file.write(data)
        except OSError as error:
            raise disk_fault(error, self._part.parent, (self._head.length or 0) + RESERVE) from error
        self._hash.update(data)
        self.size += len(data)
        if not self._checked and self.size >= _HEAD:
            self._check_beginning()
        self._progress(self.size, self._head.length)

    def end(self) -> None:
        assert self._file
        try:
            self._file.flush()
            self._check_beginning()
            problem = incompleteness(self._file)
        except OSError as error:
            raise disk_fault(error, self._part.parent) from error
        finally:
            self.close()
        if problem is not None:
            raise problem

    def close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise disk_fault(error, self._part.parent) from error
            finally:
                self._file = None

    def _check_beginning(self) -> None:
        """Stops fetching web pages early."""
        assert self._file
        self._file.flush()
        self._file.seek(0)
        start = self._file.read(_TAIL)
        self._file.seek(0, os.SEEK_END)
        self._checked = True
        if b"%PDF-" not in start[:_HEAD]:
            raise _not_a_pdf(start)


def _is_in_use(part: Path) -> bool:
    """Whether the process that writes this temporary file is alive; its id is in the file name."""
    import psutil

    found = re.search(r"\.(\d+)-[0-9a-f]+\.part$", part.name)
    return found is not None and psutil.pid_exists(int(found[1]))


def incompleteness(file: BinaryIO) -> Fault | None:
    """Why this is not a complete PDF; None if it seems complete. Checks the head and the tail."""
    file.seek(0)
    start = file.read(_TAIL)
    if b"%PDF-" not in start[:_HEAD]:
        return _not_a_pdf(start)
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _TAIL))
    tail = file.read()
    if b"startxref" not in tail or b"%%EOF" not in tail:
        return Fault("incomplete", f"the file ends early, after {format_bytes(length)}")
    return None


def incompleteness_of(path: Path) -> Fault | None:
    with path.open("rb") as file:
        return incompleteness(file)


def _not_a_pdf(start: bytes) -> Fault:
    if looks_like_page(start):
        return Fault("page", f"a web page ({page_title(start)}) instead of a PDF", body=start)
    return Fault("page", "the file is not a PDF", body=start)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_into(part: Path, source: Path) -> None:
    shutil.copyfile(source, part)


def disk_fault(error: OSError, folder: Path, need: int = RESERVE) -> Fault:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault("disk", _full(folder, need))
    return Fault("disk", f"could not write to {folder}: {error.strerror or error}")


def _full(folder: Path, need: int) -> str:
    try:
        free = format_bytes(shutil.disk_usage(folder).free)
    except OSError:
        free = "an unknown amount"
    return f"the disk is full: {format_bytes(need)} needed in {folder}, {free} free"


def probe(folders: tuple[Path, ...]) -> None:
    """Check that files can be created in each folder. Raises ReadtrackError naming folder and setting."""
    for folder in folders:
        name = folder / f".probe.{os.getpid()}-{os.urandom(4).hex()}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name.write_bytes(b"")
            name.unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> ReadtrackError:
    return ReadtrackError(
        f"cannot write to {folder} ({error.strerror or error}). Set READTRACK_HOME to a writable folder."
    )


def attach(home: Home, paper_id: str, file: Path) -> tuple[Path, Path | None]:
    """Copy the reader's PDF to the library, where syncs do not replace it, and return its path.

    Also returns the path of the previous PDF if a sync cannot fetch that again. Raises ReadtrackError.
    """
    probe((home.pdfs,))
    pdfs = Pdfs(home)

    def fill(part: Path) -> PdfRecord:
        with _open_regular(file) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
        if problem := incompleteness_of(part):
            raise problem
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        return PdfRecord(
            origin="attached", source=file.name, size=part.stat().st_size, sha256=digest(part), at=stamp
        )

    try:
        kept = pdfs.publish(paper_id, fill)
    except Fault as fault:
        if fault.kind == "disk":
            raise ReadtrackError(f"{fault}.") from fault
        raise ReadtrackError(f"{file} is not a complete PDF: {fault}.") from fault
    return pdfs.path(paper_id), kept


def _open_regular(file: Path) -> BinaryIO:
    """Open a regular file. Raises ReadtrackError for other files, and above the size limit."""
    try:
        number = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe must not wait for a writer
    except OSError as error:
        raise ReadtrackError(f"could not read {file}: {error.strerror}.") from error
    status = os.fstat(number)
    if stat.S_ISREG(status.st_mode) and status.st_size <= LIMIT:
        return os.fdopen(number, "rb")
    os.close(number)
    problem = "is not a regular file. Give the path of a PDF"
    if stat.S_ISREG(status.st_mode):
        problem = f"has {format_bytes(status.st_size)}; the limit is {format_bytes(LIMIT)}"
    raise ReadtrackError(f"{file} {problem}.")
