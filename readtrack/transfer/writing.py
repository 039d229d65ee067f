"""An export written to a file, for both front ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from readtrack.errors import ReadtrackError
from readtrack.home import replacing
from readtrack.library import Library
from readtrack.text import one_line
from readtrack.transfer import exporting

Format = Literal["markdown", "bibtex", "json", "csv"]

_ENDINGS: Mapping[str, Format] = {".md": "markdown", ".bib": "bibtex", ".json": "json", ".csv": "csv"}


def format_of(path: Path) -> Format:
    """The format that the file's ending stands for. Raises ReadtrackError."""
    try:
        return _ENDINGS[path.suffix.casefold()]
    except KeyError:
        raise ReadtrackError(f"{path.name} needs one of these endings: {', '.join(_ENDINGS)}.") from None


def write(library: Library, form: Format, path: Path) -> list[str]:
    """Write the list to a regular file, which is replaced as a whole; what was left out, in sentences.

    Raises ReadtrackError.
    """
    left_out: list[str] = []
    try:
        with replacing(path.resolve()) as part, part.open("w", encoding="utf-8", newline="") as file:
            if form == "json":
                left_out = exporting.write_json(library, file)
            else:
                to = {"markdown": exporting.to_markdown, "bibtex": exporting.to_bibtex}
                file.write(to.get(form, exporting.to_csv)(library))
    except OSError as error:
        raise ReadtrackError(f"Could not write {path}: {error.strerror}.") from error
    large = [f"left out because it is too large for an export: {one_line(name)}" for name in left_out]
    return [*large, *exporting.unsaid(library, form)]
