"""Add a paper to the reader's list: a shipped one, or any other by arXiv id, DOI, link or title."""

from __future__ import annotations

import html
import json
import keyword
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home, replacing
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Catalog, CatalogError, Note, Paper, Row, Section, Source
from readtrack.reading_list.insert import NewPaper, find_section, insert, insert_source, without_ticks
from readtrack.reading_list.papers_yaml import MISSING
from readtrack.reading_list.sources import (
    letters,
    make_id,
    name_key,
    not_a_source,
    parsed,
    source_key,
    sources_in,
    title_in,
)
from readtrack.sync import metadata
from readtrack.sync.clock import Clock
from readtrack.sync.faults import Fault
from readtrack.sync.lock import AlreadyRunningError, exclusive
from readtrack.sync.throttle import HostThrottle
from readtrack.text import nearest, one_line, quoted

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.sync.client import Client, Endpoints

MAX_AUTHORS = 10
_FETCHED = {"arxiv": "the abstract and PDF", "pdf": "the PDF"}  # what a sync will fetch, by kind of source


@dataclass(frozen=True, slots=True)
class Added:
    """The added paper and its list.

    `copied`: the reader had no list, and has one now. `missing`: unknown facts; `unasked`: why the source
    could not be contacted, or "". `fetched`: what a sync will fetch: "the abstract and PDF", "the PDF" or "".
    `linked`: the source that was added to a paper that was already on the list.
    """

    paper: str
    title: str
    path: Path
    line: int
    copied: bool
    missing: tuple[str, ...] = ()
    unasked: str = ""
    fetched: str = ""
    linked: str = ""


class ListedError(NotAvailableError):
    """The paper is on the list already: `paper` is its id."""

    def __init__(self, paper: str, message: str) -> None:
        super().__init__(message)
        self.paper = paper


@dataclass(frozen=True, slots=True)
class GivenFacts:
    title: str = ""
    authors: tuple[str, ...] = ()
    year: int | None = None
    arxiv: metadata.FeedEntry | None = None


def add(
    library: Library,
    text: str,
    *,
    title: str | None = None,
    authors: Sequence[str] = (),
    year: int | None = None,
    paper_id: str | None = None,
    section: str | None = None,
    clock: Clock | None = None,
    cancel: threading.Event | None = None,
    notice: Callable[[str], None] = lambda text: None,
    endpoints: Endpoints | None = None,
) -> Added:
    """Add the paper that `text` identifies to the reader's list.

    `text` is a known id, alias or title, an arXiv id, a DOI, a link, or a title; a title may stand next to an
    id or a link. No request is made for a known paper, nor if title, authors and year are given. If the
    source cannot be contacted, its facts are missing until a sync fetches them. Arguments take precedence
    over fetched facts, and fetched facts over a title in `text`. Raises ListedError if the paper is on the
    list already, NotAvailableError if the source does not know it, ReadtrackError if `text` identifies
    nothing.
    """
    find_section([part.title for part in library.catalog.sections], section)
    if not (title or authors or year or paper_id) and (known := known_paper(library, text)):
        if known.id in library.listed:
            _refuse_listed(library, lambda paper: paper.id == known.id)
        entry = NewPaper(known.id, known.title, known.authors, known.year, "", "", is_known=True)
        fetched = _FETCHED.get(next(iter(known.pdf_sources)).kind, "") if known.pdf_sources else ""
        return replace(_written(library, entry, section), fetched=fetched)
    words, source = _understood(library, text, title)
    if source is not None:
        _refuse_listed(library, lambda paper: _is_of(paper, source))
        if same := _without_source(library, one_line(title or words), source):
            return _with_source(library, same, source)
    clock, found, unasked = clock or Clock(), GivenFacts(), ""
    if source is not None and source.kind in ("arxiv", "doi") and not (title and authors and year):
        try:
            with asking(library.home, clock, cancel or threading.Event(), notice, endpoints) as asked:
                found = from_source(*asked, source)
        except Fault as fault:
            unasked = f"{'offline: ' if fault.kind == 'offline' else ''}{fault}"
        except AlreadyRunningError as error:
            unasked = str(error)
    facts = GivenFacts(
        one_line(title or "") or found.title or words,
        tuple(name for name in map(one_line, authors) if name) or found.authors,
        year or found.year or (_year_of(source) if source is not None else None),
        found.arxiv,
    )
    if facts.title:
        _refuse_listed(library, lambda paper: letters(paper.title) == letters(facts.title))
    name = facts.title or _placeholder(source)
    entry = NewPaper(
        id=_checked_id(paper_id, library.catalog) if paper_id else make_id(name, _taken(library.catalog)),
        title=name,
        authors=shortened(facts.authors),
        year=facts.year or 0,
        kind=source.kind if source is not None else "",
        value=source.value if source is not None else "",
        missing=() if facts.title else ("title",),
    )
    added = _written(library, entry, section)
    if facts.arxiv is not None and source is not None:
        try:
            library.home.ensure(library.home.metadata)
            metadata.save(library.home.metadata, entry.id, source.value, facts.arxiv, clock.wall())
        except OSError as error:
            notice(f"the abstract could not be kept: {error.strerror}")
    missing = tuple(one for one in MISSING if not getattr(facts, one))
    return replace(added, missing=missing, unasked=unasked, fetched=_FETCHED.get(entry.kind, ""))


def known_paper(library: Library, text: str) -> Paper | None:
    """The known paper, listed or not, with this id, alias, title or source.

    The link may stand next to a title. If several papers match, such as a work and its parts, the one with
    the shortest title is returned.
    """
    papers = library.catalog.papers.values()
    name, title = name_key(text), letters(text)
    found = [p for p in papers if name in (p.id, *map(name_key, p.aliases))]
    if not found and title:
        found = [paper for paper in papers if letters(paper.title) == title]
    if not found and (source := _split(text)[1]):
        found = [paper for paper in papers if _is_of(paper, source)]
    return min(found, key=lambda paper: (len(paper.title), paper.id not in library.listed), default=None)


def unfetched(catalog: Catalog, text: str) -> Paper:
    """An unknown paper from the text of a row or the reader: its title, an arXiv id, a DOI, a link.

    A title next to an id is kept until the next sync fetches the paper's own. Raises ReadtrackError if `text`
    has none of these.
    """
    found = list(sources_in(text))
    named = next((one for one in found if one.kind in ("arxiv", "doi")), None)
    source = named or next(iter(found), None)
    title, year = title_in(text)
    if not title and named is None:
        raise ReadtrackError(f"{quoted(text)} names no paper. Give a title, an arXiv id or a DOI.")
    title = title or _placeholder(source)
    return Paper(
        id=make_id(title, _taken(catalog)),
        title=title,
        authors=(),
        year=year or (_year_of(source) if source is not None else None) or 0,
        sources=(source,) if source is not None else (),
        aliases=(),
        builds_on=(),
        problem="",
        idea="",
        result="",
        line=0,
        missing=("title",) if named is not None else (),
    )


def check_means_paper(library: Library, text: str) -> None:
    """Raise the ReadtrackError that `add` would raise if `text` identifies no paper."""
    if known_paper(library, text) is None:
        _understood(library, text, None)


def _understood(library: Library, text: str, title: str | None) -> tuple[str, Source | None]:
    """The title in `text` ("" if none) and the source. Raises ReadtrackError."""
    words, source = _split(text)
    if source is not None and source.kind in ("pdf", "page") and not (title or words):
        raise ReadtrackError(
            'A link does not name the paper. Write its title before the link: "Title https://..."'
        )
    quoted_title = re.fullmatch(r'["“](.+)["”]', words)
    if source is None and len(words.split()) < 2 and not (title or quoted_title):
        hint = nearest(words, library.catalog.papers, "put a one-word title in double quotes")
        raise ReadtrackError(f"{not_a_source(text)} No paper that readtrack knows has this name; {hint}.")
    return (quoted_title[1].strip() if quoted_title else words), source


def _split(text: str) -> tuple[str, Source | None]:
    """Split `Title https://arxiv.org/abs/1706.03762` into title and source, in either order.

    Also accepts `[Title](link)`. Either part may be absent.
    """
    text = one_line(text)
    if found := re.fullmatch(r"\[(.+)\]\((\S+)\)", text):
        text = f"{found[1]} {found[2]}"
    if source := parsed(text):
        return "", source
    first, _, behind = text.partition(" ")
    before, _, last = text.rpartition(" ")
    for one, rest in ((last, before), (first, behind)):
        one = one.lstrip("<([").rstrip(".,;:>]")
        source = parsed(one if "(" in one else one.rstrip(")"))
        if source is not None:
            return rest.strip(" \t-–—:,;|(["), source
    return text, None


def _placeholder(source: Source | None) -> str:
    assert source is not None
    return f"arXiv {source.value}" if source.kind == "arxiv" else f"DOI {source.value}"


def _year_of(source: Source) -> int | None:
    """The year in an arXiv id, which is the year of the first version."""
    found = re.match(r"(?:[a-z.-]+/)?(\d\d)\d\d", source.value, re.IGNORECASE)
    if source.kind != "arxiv" or not found:
        return None
    return (1900 if int(found[1]) > 90 else 2000) + int(found[1])


def _checked_id(paper_id: str, listed: Catalog) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", paper_id) or keyword.iskeyword(paper_id):
        raise ReadtrackError(
            f"{quoted(paper_id)} is not an id; use lower-case letters, digits and '_', "
            "starting with a letter."
        )
    if paper_id in _taken(listed):
        raise ReadtrackError(f"{paper_id!r} is already taken; choose another --id.")
    return paper_id


def _taken(listed: Catalog) -> set[str]:
    aliases = {alias.casefold() for paper in listed.papers.values() for alias in paper.aliases}
    return {*listed.papers, *aliases}


# Duplicates


def _refuse_listed(library: Library, is_same: Callable[[Paper], bool]) -> None:
    listed = library.catalog
    for paper in listed.papers.values():
        if (paper.id in library.listed or paper.line) and is_same(paper):
            row = next(iter(listed.rows_of(paper.id)), None)
            where = f"{listed.path.name}:{paper.line or (row.line if row else 0)}"
            raise ListedError(paper.id, f"it is on the list already: {paper.id} ({paper.title}), {where}.")


def _without_source(library: Library, title: str, source: Source) -> Paper | None:
    """The listed paper with this title and no source of this kind."""
    papers = library.catalog.papers.values() if title and library.is_readers else ()
    return next(
        (
            paper
            for paper in papers
            if paper.line
            and letters(paper.title) == letters(title)
            and source.kind not in {one.kind for one in paper.own_sources}
        ),
        None,
    )


def _is_of(paper: Paper, source: Source) -> bool:
    return source_key(source) in map(source_key, paper.own_sources)


# Facts


@contextmanager
def asking(
    home: Home,
    clock: Clock,
    cancel: threading.Event,
    notice: Callable[[str], None],
    endpoints: Endpoints | None,
) -> Iterator[tuple[Client, Endpoints]]:
    """A client that shares the request throttle. Raises AlreadyRunningError while a sync runs."""
    from readtrack.sync.client import Client, Endpoints

    where = endpoints or Endpoints.from_environment()
    with exclusive(home) as folder:
        gate = HostThrottle(folder / "requests.json", clock, cancel, where.arxiv_hosts)
        client = Client(gate, clock, cancel, notice=notice)
        try:
            yield client, where
        finally:
            client.close()


def from_source(client: Client, endpoints: Endpoints, source: Source) -> GivenFacts:
    """The facts from arXiv or the DOI registry. Raises Fault, or NotAvailableError for an unknown id."""
    return (_from_arxiv if source.kind == "arxiv" else _from_doi)(client, endpoints, source.value)


def _from_arxiv(client: Client, endpoints: Endpoints, arxiv_id: str) -> GivenFacts:
    answer = metadata.fetch(client, endpoints, [arxiv_id])
    if arxiv_id not in answer.found:
        why = answer.refused.get(arxiv_id, "arXiv does not know it (asked twice)")
        raise NotAvailableError(f"{arxiv_id}: {why}. Nothing was added.")
    facts = answer.found[arxiv_id]
    return GivenFacts(facts.title, facts.authors, int(facts.published[:4]), facts)


def _from_doi(client: Client, endpoints: Endpoints, doi: str) -> GivenFacts:
    """The facts in the registry's own record (CSL JSON), from doi.org by content negotiation."""
    from readtrack.sync.client import Bytes

    sink = Bytes("application/vnd.citationstyles.csl+json")
    try:
        client.get(f"{endpoints.doi}/{Source('doi', doi).url.split('doi.org/', 1)[1]}", sink)
    except Fault as fault:
        if fault.kind == "gone":
            raise NotAvailableError(
                f"{doi}: the DOI registry does not know it. Nothing was added."
            ) from fault
        raise
    try:
        return _from_csl(json.loads(sink.data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Fault("feed", f"the record of {doi} could not be read") from error


def _from_csl(document: dict[str, Any]) -> GivenFacts:
    title = document.get("title") or ""
    title = title[0] if isinstance(title, list) and title else title
    names = []
    for author in document.get("author") or []:
        name = author.get("literal") or " ".join(filter(None, (author.get("given"), author.get("family"))))
        names.append(_clean(name))
    parts = (document.get("issued") or {}).get("date-parts") or [[None]]
    year = int(parts[0][0]) if parts[0] and parts[0][0] else None
    return GivenFacts(
        _clean(str(title)), tuple(filter(None, names)), year if year and 1800 <= year < 2100 else None
    )


def _clean(text: str) -> str:
    """Remove the tags and entities that registries have in titles."""
    return one_line(html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", text)))


def shortened(authors: tuple[str, ...]) -> tuple[str, ...]:
    unique = tuple(dict.fromkeys(authors))
    return unique if len(unique) <= MAX_AUTHORS else (*unique[:MAX_AUTHORS], "et al.")


# File


def _written(library: Library, entry: NewPaper, section: str | None) -> Added:
    """Insert, check the result, and only then replace the file."""
    listed = library.catalog
    copied = not library.is_readers
    path = library.home.papers_yaml if copied else listed.path

    def changed(text: str) -> str:
        return insert(without_ticks(text) if copied else text, entry, section)

    new = rewrite(
        library.home, listed.path, path, changed, lambda old, new: _check(old, new, entry, not copied)
    )
    line = next(row.line for row in new.rows_of(entry.id)) if entry.is_known else new.papers[entry.id].line
    return Added(entry.id, entry.title, path, line, copied)


def _with_source(library: Library, paper: Paper, source: Source) -> Added:
    """Append the source to the paper's sources."""
    path = library.catalog.path

    def check(old: Catalog, new: Catalog) -> None:
        wanted = {**old.papers, paper.id: paper._replace(sources=(*paper.sources, source))}
        lines = ({id_: one._replace(line=0) for id_, one in of.items()} for of in (wanted, new.papers))
        if next(lines) != next(lines) or _outline(old, True) != _outline(new, True):
            raise ReadtrackError("adding the link would change something else, so the list was not changed.")

    new = rewrite(
        library.home, path, path, lambda text: insert_source(text, paper.id, source.kind, source.value), check
    )
    found = new.papers[paper.id]
    return Added(
        paper.id,
        paper.title,
        path,
        found.line,
        False,
        fetched=_FETCHED.get(source.kind, ""),
        linked=source.value,
    )


def rewrite(
    home: Home,
    source: Path,
    path: Path,
    changed: Callable[[str], str],
    check: Callable[[Catalog, Catalog], None],
) -> Catalog:
    """Write the changed list at `source` to `path` if `check` accepts it, and return the new list."""
    home.ensure()
    target = path.resolve()  # preserves a link to a file elsewhere
    try:
        with home.lock("papers"):
            before = source.read_bytes()
            old = load.load(source)
            text = changed(before.decode("utf-8"))
            with replacing(target) as part:
                part.write_bytes(text.encode("utf-8"))
                new = load.load(part)
                check(old, new)
                if source.read_bytes() != before:
                    raise ReadtrackError(f"{source} was changed by another program. Try again.")
    except CatalogError as error:
        raise ReadtrackError(f"the list cannot be changed: {error}") from error
    except OSError as error:
        raise ReadtrackError(f"could not write {target}: {error.strerror}.") from error
    return new


def _check(old: Catalog, new: Catalog, entry: NewPaper, ticks: bool) -> None:
    """Check that the list has changed only by one paper and one row. `ticks`: keep the old list's ticks."""
    papers, known = ({id_: paper._replace(line=0) for id_, paper in one.papers.items()} for one in (new, old))
    if not entry.is_known:
        papers.pop(entry.id, None)
        known.pop(entry.id, None)
    before = _outline(old, ticks)
    rows = [item for item in _outline(new, True) if item[-1] != (entry.id,)]
    if len(rows) > len(before):
        rows.pop()  # the section that was created for it
    same = papers == known and rows == before
    if not new.rows_of(entry.id) or not same or (new.title, new.note) != (old.title, old.note):
        raise ReadtrackError("inserting the paper would change something else, so the list was not changed.")


def _outline(listed: Catalog, ticks: bool) -> list[tuple[Any, ...]]:
    outline: list[tuple[Any, ...]] = []
    for depth, item in listed.walk():
        if isinstance(item, Section):
            outline.append((depth, item.title, item.note, ()))
        elif isinstance(item, Note):
            outline.append((depth, item.text, ()))
        else:
            assert isinstance(item, Row)
            outline.append((depth, item.text, item.done and ticks, item.papers))
    return outline
