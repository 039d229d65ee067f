"""Unpack the regular files of an untrusted tar archive below one folder, up to a size limit."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from readtrack.errors import ReadtrackError
from readtrack.text import format_bytes, one_line

_BLOCK = 1024 * 1024


def unpack(archive: Path, folder: Path, *, limit: int, most: int) -> dict[str, tuple[int, str]]:
    """Write the archive's regular files below `folder`, and return (bytes, SHA-256) by path.

    limit  maximum total size of the files in bytes. most: maximum number of files

    Raises ReadtrackError for paths outside of the folder, for links and devices, for exceeded limits, and for
    a truncated archive.
    """
    files: dict[str, tuple[int, str]] = {}
    left = limit
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                if member.isdir():
                    continue
                inside = _inside(member, archive)
                if len(files) == most:
                    raise ReadtrackError(f"{archive.name} contains more than {most:,} files.")
                if member.size > left:
                    raise ReadtrackError(f"{archive.name} unpacks to more than {format_bytes(limit)}.")
                left -= member.size
                source = tar.extractfile(member)
                assert source
                target = folder / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                files[inside] = _write(source, target)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ReadtrackError(f"{archive.name} could not be unpacked: {one_line(str(error))}.") from error
    return files


def _inside(member: tarfile.TarInfo, archive: Path) -> str:
    """The member's path below the folder. Raises ReadtrackError for an invalid path."""
    path = PurePosixPath(member.name)
    name = one_line(member.name)[:100]
    if not member.isreg():
        raise ReadtrackError(f"{archive.name} contains {name!r}, which is not a regular file.")
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in member.name:
        raise ReadtrackError(f"{archive.name} contains {name!r}, which leads out of its folder.")
    return path.as_posix()


def _write(source: IO[bytes], target: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as file:  # a duplicate name is an error
        while block := source.read(_BLOCK):
            file.write(block)
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()
