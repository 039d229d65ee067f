"""An imported file or pasted text. It is kept unchanged in `imported/`, so that an export can return the
reader's own lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing, write_text
from readtrack.text import one_line, quoted

LIMIT = 32 * 1024 * 1024  # size limit in bytes of an imported file
IMPORTED = "From "  # prefix of the section name for rows without a section, followed by the file's name
_PASTED = "My papers"  # the title of a pasted list


@dataclass(frozen=True, slots=True)
class Incoming:
    """A list to import: its file name, its text, and the folder for relative paths in it."""

    name: str
    text: str
    folder: Path
    title: str = ""

    @property
    def section(self) -> str:
        """The section for BibTeX entries, and for rows without a heading."""
        return f"{IMPORTED}{one_line(self.name)}"

    @property
    def is_bibtex(self) -> bool:
        return is_bibtex(Path(self.name))

    def pdf(self, written: str) -> Path | None:
        """The PDF at a path in the list, if it is a regular file."""
        path = self.folder / Path(written).expanduser()
        try:
            return path if path.suffix.casefold() == ".pdf" and path.is_file() else None
        except (OSError, ValueError):  # the name is too long, or contains a zero byte
            return None


def is_bibtex(path: Path) -> bool:
    return path.suffix.casefold() in (".bib", ".bibtex")


def read(path: Path) -> Incoming:
    """Read the file at `path`. Raises ReadtrackError if it is not the text of a reading list."""
    if path.suffix.casefold() == ".json":
        raise ReadtrackError(f"{path} is not a list. `readtrack import` restores a JSON export.")
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "not there"
            raise ReadtrackError(f"{path} is {what}. Name a Markdown or .bib file.")
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise ReadtrackError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > LIMIT:
        raise ReadtrackError(f"{path} is larger than {LIMIT // 2**20} MiB, too large for a reading list.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ReadtrackError(f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8.") from error
    return Incoming(path.name, text, path.absolute().parent, _title(path.name))


def pasted(text: str) -> Incoming:
    """A list from pasted text: BibTeX if it begins with an entry, else Markdown. Its name is derived from
    the text.
    """
    kind = "bib" if text.lstrip().startswith("@") else "md"
    name = f"pasted-{crc32(text.encode('utf-8', 'surrogatepass')):08x}.{kind}"
    return Incoming(name, text, Path.cwd(), _PASTED)


# Imported files


def originals(home: Home) -> list[Path]:
    """The imported files, oldest first."""
    found = (home.root / "imported").glob("[0-9]*-*")
    return sorted(path for path in found if path.suffix != ".json" and path.is_file())


def kept_lists(home: Home, *, bibtex: bool) -> Iterator[Incoming]:
    """The imported files of one kind, BibTeX or Markdown, unchanged and with their line endings."""
    for path in originals(home):
        if is_bibtex(path) == bibtex:
            name = path.name.partition("-")[2]
            text = path.read_bytes().decode("utf-8", "replace")
            yield Incoming(name, text, path.parent, _title(name))


def _title(name: str) -> str:
    """The title for a list without one."""
    return _PASTED if name.startswith("pasted-") else one_line(Path(name).stem)


def _kept(home: Home, name: str) -> Path:
    """The path at which the file is kept: the path of its earlier version if there is one."""
    there = originals(home)
    same = [one for one in there if one.name.partition("-")[2] == name]
    number = max((int(one.name.partition("-")[0]) for one in there), default=0) + 1
    return same[0] if same else home.root / "imported" / f"{number:03}-{name}"


def is_kept(home: Home, incoming: Incoming) -> bool:
    kept = _kept(home, incoming.name)
    return kept.exists() and kept.read_bytes() == incoming.text.encode("utf-8")


def cited(home: Home, name: str) -> dict[str, str]:
    """The papers of a kept .bib file's entries by cite key; "" for excluded entries. Contains only choices
    shown to the reader during the import, because the file itself may claim anything.
    """
    try:
        found = json.loads(_keys(_kept(home, name)).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    texts = found.items() if isinstance(found, dict) else ()
    return {str(key): paper for key, paper in texts if isinstance(paper, str)}


def _keys(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.json")


def keep(home: Home, incoming: Incoming, keys: Mapping[str, str]) -> None:
    """Keep the file unchanged, with the papers of its entries (`cited`). Raises ReadtrackError."""
    kept, keys = _kept(home, incoming.name), {**cited(home, incoming.name), **keys}
    home.ensure(kept.parent)
    try:
        with replacing(kept) as part:
            part.write_bytes(incoming.text.encode("utf-8"))
        if keys:
            write_text(_keys(kept), json.dumps(keys, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise ReadtrackError(f"could not keep {quoted(incoming.name)}: {error.strerror}.") from error
