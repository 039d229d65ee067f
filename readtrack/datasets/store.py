"""Data sets in the home: `data/<name>/` has the original files, and `data.json` their description.

A data set exists completely or not at all: its folder gets its name after all files have been checked.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast, get_args

from readtrack import regular
from readtrack.datasets.catalogue import DataFile, DataSet, Format, Kind, catalogue
from readtrack.datasets.unpack import unpack
from readtrack.datasets.weights import check_safetensors
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.text import format_bytes, one_line

LIMIT = 64 * 1024**3  # size limit of one data set in bytes
MOST_FILES = 1_000_000
UNPACKED: tuple[Format, ...] = ("speech commands", "lj speech")
GROWTH = 4  # factor by which an archive of sounds may grow when unpacked
_ABOUT = "data.json"
_BLOCK = 1024 * 1024
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_SOUNDS = (".wav",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A data set in the home.

    origin  "fetched" (by `readtrack data get`), "added" (files of a known data set), or "own"
    files   [bytes, SHA-256] by path below the folder
    """

    name: str
    kind: Kind
    format: Format
    origin: str
    at: str
    files: dict[str, tuple[int, str]]

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.files.values())


class DataSets:
    """The data sets in one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.folder = home.data

    def names(self) -> list[str]:
        """The names of the data sets in the home, sorted."""
        return sorted(path.parent.name for path in self.folder.glob(f"[a-z0-9]*/{_ABOUT}"))

    def find(self, name: str) -> Stored:
        """The data set of this name. Raises NotAvailableError, with the next step, if there is none."""
        try:
            about = json.loads(regular.read_bytes(self.path(name) / _ABOUT, 256 * 1024**2))
            return _stored(about)
        except FileNotFoundError:
            here = ", ".join(self.names()) or "none"
            hint = f"`readtrack data get {name}` fetches it." if name in catalogue() else f"Here: {here}."
            raise NotAvailableError(f"The data set {one_line(name)!r} is not here. {hint}") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ReadtrackError(
                f"{self.path(name) / _ABOUT} cannot be read ({one_line(str(error))}). "
                f"Run `readtrack data remove {name}`, then fetch or add it again."
            ) from error

    def path(self, name: str) -> Path:
        """The data set's folder. Raises ReadtrackError for an invalid name."""
        return self.folder / checked_name(name)

    def remove(self, name: str) -> int:
        """Delete the files and return the bytes freed. Raises NotAvailableError if there are none."""
        size = self.find(name).size
        shutil.rmtree(self.path(name))
        return size

    def problems(self, name: str) -> Iterator[str]:
        """Problems with the files: missing, wrong size or changed. Reads all files."""
        folder = self.path(name)
        for file, (size, sha256) in self.find(name).files.items():
            try:
                with regular.reader(folder / file) as opened:
                    digest, found = hashlib.sha256(), 0
                    for block in _blocks(opened):
                        digest.update(block)
                        found += len(block)
            except OSError as error:
                yield f"{file}: {error.strerror}"
                continue
            if found != size:
                yield f"{file} has {found:,} bytes instead of {size:,}"
            elif digest.hexdigest() != sha256:
                yield f"{file} has changed"

    @contextmanager
    def publishing(self, name: str) -> Iterator[Path]:
        """Yield a folder to fill, which becomes `name` if the block succeeds.

        After an error the folder stays, so that a download can be resumed. Raises ReadtrackError if the data
        set exists already.
        """
        final = self.path(name)
        if (final / _ABOUT).exists():
            raise ReadtrackError(f"{name} is here already. `readtrack data remove {name}` deletes it.")
        part = self._home.ensure(self.folder / f".{name}.part")
        yield part
        try:
            part.rename(final)
        except OSError as error:
            raise ReadtrackError(f"Could not make {final}: {error.strerror}.") from error

    def add_known(self, known: DataSet, source: Path) -> Stored:
        """Copy the files of a known data set from a folder, verified against the catalogue.

        Raises ReadtrackError if one is missing, not a regular file, or a different file.
        """
        with self.publishing(known.name) as part:
            files = {}
            for file in known.files:
                size, sha256 = _copy(source / file.name, part / file.name, file.size + 4096)
                if not is_same(file, part / file.name, sha256):
                    (part / file.name).unlink()
                    raise ReadtrackError(
                        f"{source / file.name} is not {known.name}'s file. Its SHA-256 is {sha256} "
                        f"instead of {file.sha256}."
                    )
                files[file.name] = (size, sha256)
            check_weights(part, known)
            if known.format in UNPACKED:
                files = unpacked(part, known)
            return write_about(part, known.name, known.kind, known.format, "added", files)

    def add_own(self, name: str, source: Path, kind: Kind | None) -> Stored:
        """Copy the reader's own text file, folder of pictures or folder of .wav files.

        The names of subfolders are the labels. Raises ReadtrackError if there are no such files, for links
        and devices, and for names of known data sets.
        """
        if name in catalogue():
            raise ReadtrackError(f"{name!r} is the name of a known data set. Choose another name.")
        checked_name(name)
        found: Kind
        if source.is_file():
            if _is_binary(source):
                raise ReadtrackError(
                    f"{source} is not a text. If it is an archive, unpack it first and add its folder."
                )
            paths, found = [source], "text"
        else:
            paths, found = _of_folder(source, kind)
        if kind not in (None, found):
            raise ReadtrackError(f"{source} is {found}, not {kind}.")
        form: Format = {"text": "text", "images": "pictures", "speech": "sounds"}[found]  # type: ignore[assignment]
        root = source.parent if source.is_file() else source
        with self._fresh(name) as part:
            files = {}
            for path in paths:
                inside = "text.txt" if found == "text" else path.relative_to(root).as_posix()
                (part / inside).parent.mkdir(parents=True, exist_ok=True)
                files[inside] = _copy(path, part / inside, LIMIT)
            return write_about(part, name, found, form, "own", files)

    @contextmanager
    def _fresh(self, name: str) -> Iterator[Path]:
        shutil.rmtree(self.folder / f".{name}.part", ignore_errors=True)
        with self.publishing(name) as part:
            try:
                yield part
            except BaseException:  # even Ctrl+C leaves no incomplete data set
                shutil.rmtree(part, ignore_errors=True)
                raise


def checked_name(name: str) -> str:
    """`name`, if it is valid for a data set. Raises ReadtrackError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
        raise ReadtrackError(
            f"{one_line(name)!r} cannot be the name of a data set: use a to z, 0 to 9 and hyphens."
        )
    return name


def is_same(file: DataFile, path: Path, sha256: str) -> bool:
    """Whether the file at `path`, with this SHA-256, is the catalogue's file, possibly recompressed."""
    if sha256 == file.sha256:
        return True
    return bool(file.content) and _content(path) == file.content


def check_weights(folder: Path, known: DataSet) -> None:
    """Raises ReadtrackError if `known` are weights and one of the files in `folder` could run code.

    All files except word lists (.txt) must be safetensors. An unsafe file is deleted.
    """
    if known.kind != "weights":
        return
    for file in known.files:
        if not file.name.endswith(".txt"):
            try:
                check_safetensors(folder / file.name)
            except ReadtrackError:
                (folder / file.name).unlink()
                raise


def unpacked(part: Path, known: DataSet) -> dict[str, tuple[int, str]]:
    """Unpack the archives of `known` in the folder `part` and delete them. Return `Stored.files`."""
    files: dict[str, tuple[int, str]] = {}
    for file in known.files:
        folder = part / "unpacking"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files |= unpack(part / file.name, folder, limit=GROWTH * file.size, most=MOST_FILES)
        for path in list(folder.iterdir()):
            path.rename(part / path.name)
        folder.rmdir()
        (part / file.name).unlink()
    return files


def write_about(
    folder: Path, name: str, kind: Kind, form: Format, origin: str, files: dict[str, tuple[int, str]]
) -> Stored:
    """Write `data.json` into a folder that is being published."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    stored = Stored(name=name, kind=kind, format=form, origin=origin, at=at, files=files)
    (folder / _ABOUT).write_text(json.dumps(asdict(stored), ensure_ascii=False, indent=1), encoding="utf-8")
    return stored


def _stored(about: Any) -> Stored:
    files = {str(file): (int(size), str(sha256)) for file, (size, sha256) in about["files"].items()}
    if about["kind"] not in get_args(Kind) or about["format"] not in get_args(Format):
        raise ValueError(f"unknown kind or format: {about['kind']}, {about['format']}")
    if any(".." in Path(file).parts or Path(file).is_absolute() for file in files):
        raise ValueError("a file is outside the folder")
    return Stored(
        name=checked_name(about["name"]),
        kind=about["kind"],
        format=about["format"],
        origin=str(about["origin"]),
        at=str(about["at"]),
        files=files,
    )


def _of_folder(folder: Path, kind: Kind | None) -> tuple[list[Path], Kind]:
    """The pictures or sounds below `folder`, of the requested kind or else the more frequent one."""
    pictures, sounds = [], []
    for path in _walk(folder):
        if path.suffix.lower() in _PICTURES:
            pictures.append(path)
        elif path.suffix.lower() in _SOUNDS:
            sounds.append(path)
    found: Kind = (
        kind if kind in ("images", "speech") else "images" if len(pictures) >= len(sounds) else "speech"
    )
    chosen = pictures if found == "images" else sounds
    if not chosen:
        raise ReadtrackError(
            f"{folder} has no pictures ({', '.join(_PICTURES)}) and no .wav files. Add a text as a file."
        )
    return chosen, found


def _walk(folder: Path) -> Iterator[Path]:
    """The regular files below `folder`, in order, without links and hidden files."""
    count = 0
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(here) / name
            if name.startswith(".") or path.is_symlink() or not path.is_file():
                continue
            count += 1
            if count > MOST_FILES:
                raise ReadtrackError(f"{folder} has more than {MOST_FILES:,} files.")
            yield path


def _is_binary(path: Path) -> bool:
    try:
        with regular.reader(path) as file:
            return b"\0" in file.read(_BLOCK)
    except OSError:
        return False  # copying it will report the error


def _copy(source: Path, target: Path, limit: int) -> tuple[int, str]:
    """Copy a regular file, and return its size and SHA-256. Raises ReadtrackError."""
    digest, size = hashlib.sha256(), 0
    try:
        with regular.reader(source) as file, target.open("wb") as copy:
            for block in _blocks(file):
                size += len(block)
                if size > limit:
                    raise ReadtrackError(f"{source} is larger than {format_bytes(limit)}.")
                digest.update(block)
                copy.write(block)
    except OSError as error:
        raise ReadtrackError(f"Could not copy {source}: {error.strerror}.") from error
    return size, digest.hexdigest()


def _content(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") as file:
            for block in _blocks(cast("IO[bytes]", file)):
                digest.update(block)
    except (OSError, EOFError):
        return ""  # not a .gz file
    return digest.hexdigest()


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    read: Callable[[int], bytes] = file.read
    while block := read(_BLOCK):
        yield block
