"""Safe opening of files in folders of unknown origin, such as a merged run.

A link, a FIFO or a device with a known name could make readtrack write to another file, block for ever, or
read without end. The functions of this module raise OSError instead.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO


def descriptor(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open the regular file at `path` without following links. Raises OSError for anything else."""
    found = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return found


def reader(path: Path) -> IO[bytes]:
    """`path` opened for reading, under the conditions of `descriptor`."""
    return os.fdopen(descriptor(path), "rb")


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of `path`. Raises OSError as `descriptor` does, and for more than `limit` bytes."""
    with reader(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"Larger than {limit:,} bytes", str(path))
    return data
