"""Writes an export to a file, for both front ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from readtrack.errors import ReadtrackError
from readtrack.home import replacing
from readtrack.library import Library
from readtrack.text import one_line
from readtrack.transfer import exporting

Format = Literal["markdown", "bibtex", "json", "csv"]

_ENDINGS: Mapping[str, Format] = {".md": "markdown", ".bib": "bibtex", ".json": "json", ".csv": "csv"}


def format_of(path: Path) -> Format:
    """The format for the file's extension. Raises ReadtrackError."""
    try:
        return _ENDINGS[path.suffix.casefold()]
    except KeyError:
        raise ReadtrackError(f"{path.name} needs one of these endings: {', '.join(_ENDINGS)}.") from None


def write(library: Library, form: Format, path: Path, *, pdfs: bool = False) -> list[str]:
    """Write the list to a file, which is replaced atomically, or directly to a device or pipe.

    Returns what `write_to` returns. Also raises ReadtrackError if the file cannot be written.
    """
    try:
        with _opened(path) as file:
            return write_to(library, form, file, pdfs=pdfs)
    except OSError as error:
        raise ReadtrackError(f"Could not write {path}: {error.strerror}.") from error


def write_to(library: Library, form: Format, file: IO[str], *, pdfs: bool = False) -> list[str]:
    """Write the list, and return sentences about omitted data. pdfs: as in `exporting.write_json`."""
    left_out: list[str] = []
    if form == "json":
        left_out = exporting.write_json(library, file, pdfs=pdfs)
    else:
        to = {"markdown": exporting.to_markdown, "bibtex": exporting.to_bibtex}
        file.write(to.get(form, exporting.to_csv)(library))
    large = [f"left out because it is too large for an export: {one_line(name)}" for name in left_out]
    return [*large, *exporting.unsaid(library, form)]


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
    else:
        with replacing(path.resolve()) as part, part.open("w", encoding="utf-8", newline="") as file:
            yield file
