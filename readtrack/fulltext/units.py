"""What the search index is made from, unit by unit: the list, each abstract, each note, each PDF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from readtrack.fulltext import pdf
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.catalog import Row

Text: TypeAlias = tuple[str, str, int, str]  # subject, kind, page (0 for what has none), body


@dataclass(frozen=True, slots=True)
class Unit:
    """`stamp` is another one when the texts may be others; `texts` reads them."""

    name: str
    table: Literal["texts", "pages"]
    stamp: str
    texts: Callable[[], Iterable[Text]]


def units(library: Library) -> Iterator[Unit]:
    """Everything that can be searched; looks at files' times and sizes, reads none."""
    yield Unit(
        "list", "texts", f"{library.catalog.path} {pdf.stamp(library.catalog.path)}", partial(_list, library)
    )
    papers = library.catalog.papers
    for path in _files(library.home.metadata, ".json"):
        if path.stem in papers:
            yield Unit(
                f"abstract:{path.stem}", "texts", pdf.stamp(path), partial(_abstract, library, path.stem)
            )
    for subject, path in library.noted().items():
        yield Unit(f"note:{subject}", "texts", pdf.stamp(path), partial(_note, library, subject))
    for path in _files(library.home.pdfs, ".pdf"):
        if path.stem in papers:
            yield Unit(f"pdf:{path.stem}", "pages", pdf.stamp(path), partial(_pages, library.home, path))


def _files(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == suffix and path.name[0] != ".")
    except OSError:
        return []


def _list(library: Library) -> Iterator[Text]:
    for paper in library.catalog.papers.values():
        yield paper.id, "name", 0, " ".join((paper.id, paper.id.replace("_", " "), *paper.aliases))
        yield paper.id, "title", 0, paper.title
        for author in paper.authors:
            yield paper.id, "author", 0, author
        if paper.summary:
            yield paper.id, "summary", 0, f"{paper.summary} {paper.claim}"
    for _, item in library.catalog.walk():
        if isinstance(item, Row):
            for subject in item.papers or (item.subject,):
                yield subject, "row" if item.papers else "title", 0, item.text


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
        return  # it is remembered, and the doctor names it
