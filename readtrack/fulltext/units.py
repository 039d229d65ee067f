"""The texts of the search index in units: the list, each abstract, each note, each PDF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeAlias

from readtrack.fulltext import pdf
from readtrack.fulltext.words import worded
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.catalog import Catalog, Paper, Row

Text: TypeAlias = tuple[str, str, int, str]  # subject, kind, page (0 if there is none), body


class Head(NamedTuple):
    """Names and titles, preprocessed for comparison with search words.

    names  |flashattention|flashattn|
    words  of the names and titles: " | flash attention | flash attn | flash attention fast and ... | "
    """

    names: str
    words: str


@dataclass(frozen=True, slots=True)
class Unit:
    """Texts of one source. `stamp` changes when they may have changed; `texts` reads them."""

    name: str
    stamp: str
    texts: Callable[[], Iterable[Text]]


def listed(catalog: Catalog) -> Unit:
    """The list without names and titles. The stamp is a hash of the texts."""
    texts = repr(list(_list(catalog))).encode(errors="replace")
    return Unit("list", blake2b(texts).hexdigest(), partial(_list, catalog))


def abstracts_and_notes(library: Library) -> Iterator[Unit]:
    """Units of abstracts and notes, from the files' times and sizes without reading them."""
    for paper, path in files(library.home.metadata, ".json").items():
        if paper in library.catalog.papers:
            yield Unit(f"abstract:{paper}", pdf.stamp(path), partial(_abstract, library, paper))
    for subject, path in library.noted().items():
        yield Unit(f"note:{subject}", pdf.stamp(path), partial(_note, library, subject))


def pdfs(library: Library) -> Iterator[Unit]:
    for paper, path in files(library.home.pdfs, ".pdf").items():
        if paper in library.catalog.papers:
            yield Unit(f"pdf:{paper}", pdf.stamp(path), partial(_pages, library.home, path))


def files(folder: Path, suffix: str) -> dict[str, Path]:
    """Paths of files by name without suffix."""
    try:
        paths = [path for path in folder.iterdir() if path.suffix == suffix and path.name[0] != "."]
    except OSError:
        return {}
    return {path.stem: path for path in sorted(paths)}


def heads(catalog: Catalog) -> dict[str, Head]:
    """Heads of the list's subjects in order, then of the papers that no row names."""
    titles: dict[str, list[str]] = {}
    for _, item in catalog.walk():
        if isinstance(item, Row):
            for subject in item.papers or (item.subject,):
                titles.setdefault(subject, []).extend([item.text] if len(item.papers) < 2 else [])
    return {
        subject: _head(catalog.papers.get(subject), titles.get(subject, []))
        for subject in (titles | catalog.papers)
    }


def _head(paper: Paper | None, rows: list[str]) -> Head:
    names = [worded(name) for name in (paper.id, *paper.aliases)] if paper is not None else []
    titles = map(worded, (paper.title, *rows) if paper is not None else rows)
    squeezed = (name.replace(" ", "") for name in names)
    return Head("|".join(("", *squeezed, "")), " | ".join(("", *names, *titles, "")))


def _list(catalog: Catalog) -> Iterator[Text]:
    for paper in catalog.papers.values():
        for author in paper.authors:
            yield paper.id, "author", 0, author
        if paper.year:
            yield paper.id, "year", 0, str(paper.year)
        for kind, prose in (("idea", paper.idea), ("problem", paper.problem), ("result", paper.result)):
            if prose:
                yield paper.id, kind, 0, prose
    for _, item in catalog.walk():
        if isinstance(item, Row) and len(item.papers) > 1:
            for subject in item.papers:
                yield subject, "row", 0, item.text


def _abstract(library: Library, paper: str) -> Iterator[Text]:
    abstract = (library.metadata(paper) or {}).get("abstract")
    if isinstance(abstract, str):
        yield paper, "abstract", 0, abstract


def _note(library: Library, subject: str) -> Iterator[Text]:
    yield subject, "note", 0, library.note(subject)


def _pages(home: Home, path: Path) -> Iterator[Text]:
    try:
        for page, text in pdf.pages(home, path):
            yield path.stem, "pdf", page, text
    except pdf.UnreadableError:
        return  # recorded as unreadable, and reported by the doctor
