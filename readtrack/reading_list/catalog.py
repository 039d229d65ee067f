"""The reading list as in papers.yaml (sections, rows and papers), and the papers that ship.

Values are the text as written there (`arxiv: 2310.10` keeps its zero, `title: no` is "no"), without what
would confuse a terminal. `readtrack.reading_list.load` reads the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from readtrack.errors import ReadtrackError

SourceKind = Literal["arxiv", "doi", "pdf", "page"]


class CatalogError(ReadtrackError):
    """papers.yaml cannot be used: `papers.yaml:12: what is wrong; how to put it right`."""


class Source(NamedTuple):
    """Where a paper can be had. `value` is an arXiv id, a DOI, or the link to a PDF or a web page."""

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
    """The facts of one paper. Unknown facts are empty: no authors, no sources, year 0.

    builds_on  ids of papers
    line       where its block stands in the list; 0: it has none there, and ships with readtrack
    missing    those of "title", "authors" and "year" that are not known; such a title is a placeholder
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
        """`Title (2014)`; the title alone if the year is not known."""
        return f"{self.title} ({self.year})" if self.year else self.title

    @property
    def by(self) -> str:
        """`Ada Example, Ré Muster, 2014`, as far as it is known."""
        return ", ".join([*self.authors, *([str(self.year)] if self.year else [])])

    @property
    def link(self) -> str:
        """The address of its first source, "" if it has none."""
        return self.sources[0].url if self.sources else ""

    @property
    def facts_can_be_fetched(self) -> bool:
        """Whether its first source can be asked for the facts that are missing."""
        return bool(self.sources) and self.sources[0].kind in ("arxiv", "doi")

    @property
    def own_sources(self) -> tuple[Source, ...]:
        """Where this paper itself can be had. A later source with a note is another work that the reader
        wants to have at hand (FlashAttention-2 next to FlashAttention).
        """
        return tuple(source for number, source in enumerate(self.sources) if number == 0 or not source.note)

    @property
    def arxiv_id(self) -> str | None:
        """The arXiv id of the paper itself, with the version if the list pins one."""
        return next((source.value for source in self.own_sources if source.kind == "arxiv"), None)

    @property
    def pdf_sources(self) -> tuple[Source, ...]:
        """Where its PDF can be had, in order; where nothing of its own is one, a link with a note will do."""
        own = tuple(source for source in self.own_sources if source.kind in ("arxiv", "pdf"))
        return own or tuple(source for source in self.sources if source.kind == "pdf")[:1]


class Note(NamedTuple):
    """A line of prose between rows."""

    text: str


class Row(NamedTuple):
    """A row of the checklist, in the reader's words (Markdown and all).

    `done` is the tick in the file. `key` is made from the text and unique in the list: it stands for the row
    where the row has no papers.
    """

    text: str
    done: bool
    papers: tuple[str, ...]
    rows: tuple[Row | Note, ...]
    key: str
    line: int

    @property
    def subject(self) -> str:
        """The journal's name of a row without papers."""
        return f"row:{self.key}"


class Section(NamedTuple):
    title: str
    note: str
    rows: tuple[Row | Note, ...]


class Catalog(NamedTuple):
    """`papers` are all that readtrack knows: those of the list, then those that ship."""

    path: Path
    title: str
    note: str
    sections: tuple[Section, ...]
    papers: dict[str, Paper]

    def walk(self) -> Iterator[tuple[int, Section | Row | Note]]:
        """All of the checklist in order, with its depth: sections 0, their rows 1, rows in rows 2, ..."""

        def rows(items: tuple[Row | Note, ...], depth: int) -> Iterator[tuple[int, Row | Note]]:
            for item in items:
                yield depth, item
                if isinstance(item, Row):
                    yield from rows(item.rows, depth + 1)

        for section in self.sections:
            yield 0, section
            yield from rows(section.rows, 1)

    def listed(self) -> dict[str, None]:
        """The ids of the papers that are on the list, which are those that a row names, in its order."""
        rows = (item for _, item in self.walk() if isinstance(item, Row))
        return dict.fromkeys(paper for row in rows for paper in row.papers)

    def rows_of(self, paper_id: str) -> list[Row]:
        """The rows that name this paper, in the list's order."""
        return [item for _, item in self.walk() if isinstance(item, Row) and paper_id in item.papers]
