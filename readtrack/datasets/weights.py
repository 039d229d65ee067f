"""Released weights in safetensors files, which contain numbers and no code."""

from __future__ import annotations

import json
from pathlib import Path

from readtrack import regular
from readtrack.errors import ReadtrackError

_LONGEST = 100 * 1024**2  # the format's own limit for a header, in bytes


def check_safetensors(path: Path) -> None:
    """Raises ReadtrackError unless the file consists of a header (its length in eight bytes, then JSON) and
    tensors without gaps.

    Rejects pickles, which run code when they are loaded.
    """
    try:
        with regular.reader(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _LONGEST:
                raise ValueError("its header has an impossible length")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        places = sorted(tuple(entry["data_offsets"]) for entry in header.values())
        size, end = path.stat().st_size - 8 - length, 0
        for first, last in places:
            if first != end or last < first:
                raise ValueError("its tensors overlap or leave gaps")
            end = last
        if end != size:
            raise ValueError(f"its tensors take {end:,} bytes, but {size:,} bytes follow the header")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadtrackError(
            f"{path.name} is not a safetensors file ({error}). Weights in other formats can run code and are "
            "refused."
        ) from error
