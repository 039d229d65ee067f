"""Putting a paper on the reader's list: by arXiv id, DOI, or link."""

from __future__ import annotations

import html
import json
import keyword
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import combining, normalize
from urllib.parse import unquote

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home, replacing
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Catalog, CatalogError, Note, Paper, Row, Section, Source
from readtrack.reading_list.insert import Entry, find_section, insert
from readtrack.sync import metadata
from readtrack.sync.clock import Clock
from readtrack.sync.faults import Fault
from readtrack.sync.lock import exclusive
from readtrack.sync.throttle import HostThrottle
from readtrack.text import one_line, quoted

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.sync.client import Client, Endpoints

MAX_AUTHORS = 10
_ARXIV = re.compile(
    r"(?:arxiv:)?(\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})(v[1-9]\d*)?(?:\.pdf)?", re.IGNORECASE
)
_ARXIV_LINK = re.compile(r"https?://(?:www\.|export\.)?arxiv\.org/(?:abs|pdf|html)/", re.IGNORECASE)
_DOI_LINK = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:)", re.IGNORECASE)
_SMALL = re.compile(
    r"an?|and|are|as|at|by|do|does|for|from|how|in|into|is|its?|of|on|or|our|the|to|towards|using|via|what|when"
    r"|why|with|without|you|your"
)


@dataclass(frozen=True, slots=True)
class Added:
    """What was put on which list. `copied`: the reader had no list of their own, and has one now.

    `guessed` names the facts that nobody gave, so that the reader should look at them.
    """

    paper: str
    title: str
    path: Path
    line: int
    copied: bool
    guessed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    title: str = ""
    authors: tuple[str, ...] = ()
    year: int | None = None
    arxiv: metadata.Facts | None = None


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
    """Fetch the facts of what `text` names and insert it into the reader's papers.yaml.

    What is given here goes before what was fetched. Raises NotAvailableError if it is on the list already or
    its facts cannot be had now, ReadtrackError if `text` names nothing or something is missing.
    """
    source = parse_source(text)
    listed = library.catalog
    _refuse_listed(listed, lambda paper: any(_same(source, other) for other in paper.sources))
    find_section([part.title for part in listed.sections], section)
    clock = clock or Clock()
    found = _Facts()
    if source.kind in ("arxiv", "doi"):
        with _asking(library.home, clock, cancel or threading.Event(), notice, endpoints) as (client, where):
            found = (_from_arxiv if source.kind == "arxiv" else _from_doi)(client, where, source.value)
    elif not title:
        raise ReadtrackError("a link does not say what the paper is called; add --title (--author, --year).")
    facts = _Facts(
        one_line(title or "") or found.title,
        tuple(name for name in map(one_line, authors) if name) or found.authors,
        year or found.year,
        found.arxiv,
    )
    if not facts.title:
        raise ReadtrackError(f"nothing says what {quoted(text)} is called; add --title.")
    _refuse_listed(listed, lambda paper: _letters(paper.title) == _letters(facts.title))
    entry = Entry(
        id=_checked_id(paper_id, listed) if paper_id else make_id(facts.title, _taken(listed)),
        title=facts.title,
        authors=_shortened(facts.authors) or ("unknown",),
        year=facts.year or date.today().year,
        kind=source.kind,
        value=source.value,
    )
    path, copied = _own_list(library)
    line = _write(library.home, listed, path, entry, section)
    if facts.arxiv is not None:
        try:
            library.home.ensure(library.home.metadata)
            metadata.save(library.home.metadata, entry.id, source.value, facts.arxiv, clock.wall())
        except OSError as error:
            notice(f"the abstract could not be kept: {error.strerror}")
    guessed = (("authors",) if not facts.authors else ()) + (("year",) if not facts.year else ())
    return Added(entry.id, entry.title, path, line, copied, guessed)


def parse_source(text: str) -> Source:
    """What the reader typed, as a source. Raises ReadtrackError."""
    text = text.strip()
    bare = _ARXIV_LINK.sub("", text)
    if found := _ARXIV.fullmatch(re.split(r"[?#]", bare)[0] if bare != text else bare):
        return _arxiv_source(found)
    doi = unquote(_DOI_LINK.sub("", text)) if _DOI_LINK.match(text) else text
    if re.fullmatch(r"10\.\d{4,9}/\S+", doi):
        own = re.fullmatch(r"10\.48550/(arxiv\..+)", doi, re.IGNORECASE)
        if own and (found := _ARXIV.fullmatch(own[1].replace(".", ":", 1))):
            return _arxiv_source(found)
        return Source("doi", doi)
    if re.fullmatch(r"https?://[^\s/]+(/\S*)?", text, re.IGNORECASE):
        return Source("pdf" if re.split(r"[?#]", text)[0].lower().endswith(".pdf") else "page", text)
    raise ReadtrackError(
        f"{quoted(text)} is no arXiv id (1706.03762), no DOI (10.1162/neco.1997.9.8.1735) and no link (https://...)."
    )


def _arxiv_source(found: re.Match[str]) -> Source:
    base, version = found[1], found[2] or ""
    head, slash, number = base.partition("/")
    archive, dot, subject = head.partition(".")
    # The list wants cs/9901001 and math.GT/0309136 as arXiv writes them.
    base = f"{archive.lower()}{dot}{subject.upper()}{slash}{number}" if slash else base
    return Source("arxiv", base + version.lower())


def make_id(title: str, taken: set[str]) -> str:
    """`FlashAttention: Fast and ...` -> flashattention; else the first words that say something."""
    head, colon, _ = title.partition(":")
    short = head if colon and len(head.split()) <= 3 else title
    folded = "".join(c for c in normalize("NFKD", short.casefold()) if not combining(c))
    words = re.findall(r"[a-z0-9]+", folded.replace("'", ""))
    stem = "_".join([word for word in words if not _SMALL.fullmatch(word)][:4] or words[:4]) or "paper"
    stem = stem if stem[0].isalpha() and not keyword.iskeyword(stem) else f"paper_{stem}"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name


def _checked_id(paper_id: str, listed: Catalog) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", paper_id) or keyword.iskeyword(paper_id):
        raise ReadtrackError(
            f"{quoted(paper_id)} is not an id; use small letters, digits and '_', a letter first."
        )
    if paper_id in _taken(listed):
        raise ReadtrackError(f"{paper_id!r} is taken on the list already; choose another --id.")
    return paper_id


def _taken(listed: Catalog) -> set[str]:
    aliases = {alias.casefold() for paper in listed.papers.values() for alias in paper.aliases}
    return {*listed.papers, *aliases}


# Is it there already?


def _refuse_listed(listed: Catalog, is_same: Callable[[Paper], bool]) -> None:
    for paper in listed.papers.values():
        if is_same(paper):
            where = f"{listed.path.name}:{paper.line}"
            raise NotAvailableError(f"it is on the list already: {paper.id} ({paper.title}), {where}.")


def _same(one: Source, other: Source) -> bool:
    if one.kind != other.kind:
        return False
    if one.kind == "arxiv":
        return metadata.split_id(one.value)[0].casefold() == metadata.split_id(other.value)[0].casefold()
    if one.kind == "doi":
        return one.value.casefold() == other.value.casefold()
    return re.sub(r"^https?://", "", one.value).rstrip("/") == re.sub(r"^https?://", "", other.value).rstrip(
        "/"
    )


def _letters(title: str) -> str:
    folded = normalize("NFKD", title.casefold())
    return "".join(c for c in folded if c.isalnum())


# The facts


@contextmanager
def _asking(
    home: Home,
    clock: Clock,
    cancel: threading.Event,
    notice: Callable[[str], None],
    endpoints: Endpoints | None,
) -> Iterator[tuple[Client, Endpoints]]:
    """A client that keeps the pace of all others; its faults become errors for the reader."""
    from readtrack.sync.client import Client, Endpoints

    where = endpoints or Endpoints.from_environment()
    with exclusive(home) as folder:
        gate = HostThrottle(folder / "requests.json", clock, cancel, where.arxiv_hosts)
        client = Client(gate, clock, cancel, notice=notice)
        try:
            yield client, where
        except Fault as fault:
            offline = "offline: " if fault.kind == "offline" else ""
            raise NotAvailableError(f"{offline}{fault}. Nothing was added.") from fault
        finally:
            client.close()


def _from_arxiv(client: Client, endpoints: Endpoints, arxiv_id: str) -> _Facts:
    answer = metadata.fetch(client, endpoints, [arxiv_id])
    if arxiv_id not in answer.found:
        why = answer.refused.get(arxiv_id, "arXiv does not know it (asked twice)")
        raise NotAvailableError(f"{arxiv_id}: {why}. Nothing was added.")
    facts = answer.found[arxiv_id]
    return _Facts(facts.title, facts.authors, int(facts.published[:4]), facts)


def _from_doi(client: Client, endpoints: Endpoints, doi: str) -> _Facts:
    """By content negotiation, as doi.org offers it for the registries' own records (CSL JSON)."""
    from readtrack.sync.client import Bytes

    sink = Bytes("application/vnd.citationstyles.csl+json")
    client.get(f"{endpoints.doi}/{Source('doi', doi).url.split('doi.org/', 1)[1]}", sink)
    try:
        return _from_csl(json.loads(sink.data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NotAvailableError(
            f"the facts of {doi} did not come in a form that can be read; give --title, --author and --year, "
            "with the link to the paper"
        ) from error


def _from_csl(document: dict[str, Any]) -> _Facts:
    title = document.get("title") or ""
    title = title[0] if isinstance(title, list) and title else title
    names = []
    for author in document.get("author") or []:
        name = author.get("literal") or " ".join(filter(None, (author.get("given"), author.get("family"))))
        names.append(_clean(name))
    parts = (document.get("issued") or {}).get("date-parts") or [[None]]
    year = int(parts[0][0]) if parts[0] and parts[0][0] else None
    return _Facts(
        _clean(str(title)), tuple(filter(None, names)), year if year and 1800 <= year < 2100 else None
    )


def _clean(text: str) -> str:
    """Registries keep tags and entities in titles."""
    return one_line(html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", text)))


def _shortened(authors: tuple[str, ...]) -> tuple[str, ...]:
    unique = tuple(dict.fromkeys(authors))
    return unique if len(unique) <= MAX_AUTHORS else (*unique[:MAX_AUTHORS], "et al.")


# The file


def _own_list(library: Library) -> tuple[Path, bool]:
    """The file to edit, and whether it is to be made from the list that ships."""
    path = library.catalog.path
    copied = path == load.shipped() and path != Path("papers.yaml").absolute()
    return (library.home.papers_yaml, True) if copied else (path, False)


def _write(home: Home, listed: Catalog, path: Path, entry: Entry, section: str | None) -> int:
    """Insert, check the result, and only then replace the file. Returns the paper's line."""
    home.ensure()
    target = path.resolve()  # a link to a file elsewhere stays one
    try:
        with home.lock("papers"):
            before = listed.path.read_bytes()
            old = load.load(listed.path)
            text = insert(before.decode("utf-8"), entry, section)
            with replacing(target) as part:
                part.write_bytes(text.encode("utf-8"))
                new = load.load(part)
                _check(old, new, entry)
                if listed.path.read_bytes() != before:
                    raise ReadtrackError(f"{listed.path} was changed by another program. Try again.")
    except CatalogError as error:
        raise ReadtrackError(f"the paper cannot be added: {error}") from error
    except OSError as error:
        raise ReadtrackError(f"could not write {target}: {error.strerror}.") from error
    return new.papers[entry.id].line


def _check(old: Catalog, new: Catalog, entry: Entry) -> None:
    """The list is what it was, and one paper and one row more."""
    papers = {id_: paper._replace(line=0) for id_, paper in new.papers.items()}
    added = papers.pop(entry.id, None)
    before = _outline(old)
    rows = [item for item in _outline(new) if item[-1] != (entry.id,)]
    if len(rows) > len(before):
        rows.pop()  # the section that was made for it
    same = papers == {id_: paper._replace(line=0) for id_, paper in old.papers.items()} and rows == before
    if added is None or not same or (new.title, new.note) != (old.title, old.note):
        raise ReadtrackError("inserting the paper would change something else; the list is as it was.")


def _outline(listed: Catalog) -> list[tuple[Any, ...]]:
    outline: list[tuple[Any, ...]] = []
    for depth, item in listed.walk():
        if isinstance(item, Section):
            outline.append((depth, item.title, item.note, ()))
        elif isinstance(item, Note):
            outline.append((depth, item.text, ()))
        else:
            assert isinstance(item, Row)
            outline.append((depth, item.text, item.done, item.papers))
    return outline
