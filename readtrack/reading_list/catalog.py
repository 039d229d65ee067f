"""The reading list of papers.yaml (sections, rows and papers), and the shipped papers.

Values are the text as written in the file (`arxiv: 2310.10` keeps its zero, `title: no` is "no"), without
characters that would confuse a terminal. `readtrack.reading_list.load` reads the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from readtrack.errors import ReadtrackError

SourceKind = Literal["arxiv", "doi", "pdf", "page"]


class CatalogError(ReadtrackError):
    """papers.yaml is invalid: `papers.yaml:12: problem; solution`."""


class Source(NamedTuple):
    """A source of a paper. `value` is an arXiv id, a DOI, or the link to a PDF or a web page."""

    kind: SourceKind
    value: str
    note: str = ""

    @property
    def url(self) -> str:
        if self.kind == "arxiv":
            return f"https://arxiv.org/abs/{self.value}"
        if self.kind == "doi":
            from urllib.parse import quote

            return f"https://doi.org/{quote(self.value, safe='/():;')}"
        return self.value


class Paper(NamedTuple):
    """The facts of one paper. Unknown facts are empty (year 0).

    builds_on  ids of papers
    line       line of its block in the list; 0 for a shipped paper without a block
    missing    unknown facts among "title", "authors" and "year"; an unknown title is a placeholder
    """

    id: str
    title: str
    authors: tuple[str, ...]
    year: int
    sources: tuple[Source, ...]
    aliases: tuple[str, ...]
    builds_on: tuple[str, ...]
    problem: str
    idea: str
    result: str
    line: int
    missing: tuple[str, ...] = ()

    @property
    def dated(self) -> str:
        """`Title (2014)`, or the title alone if the year is unknown."""
        return f"{self.title} ({self.year})" if self.year else self.title

    @property
    def by(self) -> str:
        """`Ada Example, Ré Muster, 2014`, without unknown facts."""
        return ", ".join([*self.authors, *([str(self.year)] if self.year else [])])

    @property
    def link(self) -> str:
        """The address of its first source, or ""."""
        return self.sources[0].url if self.sources else ""

    @property
    def facts_can_be_fetched(self) -> bool:
        """Whether missing facts can be fetched from its first source."""
        return bool(self.sources) and self.sources[0].kind in ("arxiv", "doi")

    @property
    def own_sources(self) -> tuple[Source, ...]:
        """The sources of this paper itself.

        A later source with a note is a related work that the reader wants to keep with it (FlashAttention-2
        next to FlashAttention).
        """
        return tuple(source for number, source in enumerate(self.sources) if number == 0 or not source.note)

    @property
    def arxiv_id(self) -> str | None:
        """The arXiv id of the paper itself, with the version if the list pins one."""
        return next((source.value for source in self.own_sources if source.kind == "arxiv"), None)

    @property
    def pdf_sources(self) -> tuple[Source, ...]:
        """The sources of its PDF, in order. If none of its own is a PDF, a link with a note is used."""
        own = tuple(source for source in self.own_sources if source.kind in ("arxiv", "pdf"))
        return own or tuple(source for source in self.sources if source.kind == "pdf")[:1]


class Note(NamedTuple):
    """A line of prose between rows."""

    text: str


class Row(NamedTuple):
    """A row of the checklist, in the reader's words (including Markdown).

    `done` is the tick in the file. `key` is derived from the text and unique in the list; it identifies a row
    without papers.
    """

    text: str
    done: bool
    papers: tuple[str, ...]
    rows: tuple[Row | Note, ...]
    key: str
    line: int

    @property
    def subject(self) -> str:
        """The journal's name for a row without papers."""
        return f"row:{self.key}"


class Section(NamedTuple):
    title: str
    note: str
    rows: tuple[Row | Note, ...]


class Catalog(NamedTuple):
    """The whole list. `papers` has the list's papers, followed by the shipped papers."""

    path: Path
    title: str
    note: str
    sections: tuple[Section, ...]
    papers: dict[str, Paper]

    def walk(self) -> Iterator[tuple[int, Section | Row | Note]]:
        """All items of the checklist in order, with their depth: sections 0, rows 1, nested rows 2, ..."""

        def rows(items: tuple[Row | Note, ...], depth: int) -> Iterator[tuple[int, Row | Note]]:
            for item in items:
                yield depth, item
                if isinstance(item, Row):
                    yield from rows(item.rows, depth + 1)

        for section in self.sections:
            yield 0, section
            yield from rows(section.rows, 1)

    def listed(self) -> dict[str, None]:
        """The ids of the papers named in rows, in the order of the list."""
        rows = (item for _, item in self.walk() if isinstance(item, Row))
        return dict.fromkeys(paper for row in rows for paper in row.papers)

    def rows_of(self, paper_id: str) -> list[Row]:
        """The rows that name this paper, in the list's order."""
        return [item for _, item in self.walk() if isinstance(item, Row) and paper_id in item.papers]
