"""Changes rows of the reader's list: links them to papers, removes links, removes rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from readtrack.errors import ReadtrackError
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Catalog, Paper, Row
from readtrack.reading_list.insert import without_ticks
from readtrack.sync.add import known_paper, unfetched
from readtrack.text import nearest, one_line, quoted
from readtrack.transfer.lists import Additions, extended, places, without, write

_SHOWN = 6


def known_papers(library: Library) -> dict[str, Paper]:
    """The papers of the reader's list and the shipped papers."""
    ships = load.load_cached(load.shipped(), library.home.cache)
    return {**ships.papers, **library.catalog.papers}


def find_paper(library: Library, papers: Mapping[str, Paper], query: str) -> str:
    """The id of the paper for `query`, which may be on the reader's list or shipped."""
    wanted = query.strip().casefold()
    named = [id_ for id_, paper in papers.items() if wanted in (id_, *map(str.casefold, paper.aliases))]
    return named[0] if named else library.find(query).id


def find_row(library: Library, query: str) -> Row:
    """The row with this key (`row:KEY` or KEY), text, or part of its text. Raises ReadtrackError."""
    rows = [item for _, item in library.catalog.walk() if isinstance(item, Row)]
    words = one_line(query).casefold()
    for found in (
        [row for row in rows if row.key == words.removeprefix("row:")],
        [row for row in rows if one_line(row.text).casefold() == words],
        [row for row in rows if words in one_line(row.text).casefold()],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            shown = "; ".join(f"row:{row.key}" for row in found[:_SHOWN]) + (
                "; ..." if found[_SHOWN:] else ""
            )
            raise ReadtrackError(
                f"{quoted(query)} is ambiguous: {len(found)} rows match, {shown}. Name one of them."
            )
    hint = nearest(query, [row.key for row in rows], "`readtrack list` lists the rows")
    raise ReadtrackError(f"There is no row {quoted(query)}; {hint}")


def link(library: Library, row: Row, papers: Sequence[str]) -> None:
    """Link the row to these papers only. Its state, tags, rating and note move to the papers.

    A shipped paper that is not on the list is added with the papers that it builds on. Raises ReadtrackError,
    with the list unchanged, if the list cannot be written.
    """
    names = said_of([(row, papers)], library)
    _write(library, row, papers)
    carry(library, names)


def link_new(library: Library, row: Row, text: str) -> str:
    """Link the row to the paper given by a title, an arXiv id, a DOI or a link, and return its id. An unknown
    paper is added without a request, and the next sync fetches its facts. Raises the errors of `link`.
    """
    known = known_paper(library, text)
    paper = known or unfetched(library.catalog, text)
    names = said_of([(row, (paper.id,))], library)
    _write(library, row, (paper.id,), () if known else (paper,))
    carry(library, names)
    return paper.id


def unlink(library: Library, row: Row) -> None:
    """Remove the row's link. The row and the papers keep their states."""
    state = library.row_state(row)
    _write(library, row, ())
    if state != "todo" and library.state(row.subject) == "todo":
        library.mark(row.subject, state)


def remove(library: Library, row: Row) -> None:
    """Remove the row from the list, with the rows inside it. States, notes and runs are kept, and so are
    the facts of its papers. Raises ReadtrackError, with the list unchanged, if the list cannot be written.
    """
    path, before, text = _list(library)
    write(library.home, path, before, without(text, _place(library, row)))
    library.reload()


def inside(row: Row) -> int:
    """The number of rows nested inside the row."""
    return sum(1 + inside(one) for one in row.rows if isinstance(one, Row))


def said_of(links: Iterable[tuple[Row, Sequence[str]]], library: Library) -> dict[str, tuple[str, ...]]:
    """Maps the journal's names of rows without papers to the papers that they will get."""
    return {
        library.journal_name(row.subject): tuple(papers) for row, papers in links if not row.papers and papers
    }


def carry(library: Library, names: Mapping[str, tuple[str, ...]]) -> None:
    """Move the state, tags and rating of rows to their new papers, and append their notes."""
    library.hand_over(names)
    for name, papers in names.items():
        path = library.home.notes / f"{name.replace(':', '-')}.md"
        if path.is_file():
            before, own = (
                library.note(papers[0]).rstrip(),
                path.read_text(encoding="utf-8", errors="replace").strip(),
            )
            library.save_note(papers[0], f"{before}\n\n{own}\n" if before else f"{own}\n")
            library.home.set_aside(path)


def needed(listed: Catalog, papers: Mapping[str, Paper], wanted: Iterable[str]) -> list[Paper]:
    """The papers in `wanted` that the list does not have, with those that they build on."""
    ids = [id_ for id_ in dict.fromkeys(wanted) if id_ in papers and id_ not in listed.papers]
    for id_ in ids:
        ids += [one for one in papers[id_].builds_on if one not in ids and one not in listed.papers]
    return [papers[id_] for id_ in ids]


def _write(library: Library, row: Row, papers: Sequence[str], unknown: Sequence[Paper] = ()) -> None:
    path, before, text = _list(library)
    new = [*needed(library.catalog, known_papers(library), papers), *unknown]
    additions = Additions(papers=new, links={_place(library, row): tuple(papers)})
    write(library.home, path, before, extended(text, additions))
    library.reload()


def _place(library: Library, row: Row) -> tuple[int, ...]:
    found = (
        place for place, _, item in places(library.catalog) if isinstance(item, Row) and item.key == row.key
    )
    return next(found)


def _list(library: Library) -> tuple[Path, bytes | None, str]:
    """The path of the reader's list, its bytes (None if it does not exist yet), and the text to change."""
    home, listed = library.home, library.catalog
    path = listed.path if library.is_readers else home.papers_yaml
    before = path.read_bytes() if path.exists() else None
    text = listed.path.read_bytes().decode("utf-8")
    return path, before, text if library.is_readers else without_ticks(text)
