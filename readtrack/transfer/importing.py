"""Imports a list into the library: first a plan with the status of each row, then, on request, the changes.

Importing a file again changes nothing, except for rows whose papers the reader chose. An import never removes
a tick.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from readtrack.errors import ReadtrackError
from readtrack.home import write_text
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Catalog, Note, Paper, Row, Source
from readtrack.reading_list.journal import State
from readtrack.reading_list.sources import letters, links_in, make_id, source_key, sources_in
from readtrack.sync.add import GivenFacts, unfetched
from readtrack.sync.missing import fill_in
from readtrack.text import one_line
from readtrack.transfer import bibtex, incoming, linking, markdown
from readtrack.transfer.incoming import Incoming
from readtrack.transfer.lists import Additions, NewRow, NewSection, extended, fresh, places, write
from readtrack.transfer.matching import BY_SOURCE, Match, Matcher

Status = Literal["matched", "new", "linked", "ambiguous", "unknown", "duplicate", "listed", "left out"]
Place = tuple[int, ...]  # position in the reader's list: index of the section, then of the nested rows


@dataclass(frozen=True, slots=True)
class ImportRow:
    """A row of the file and its planned import.

    matched    it means `papers`; `how` is the kind of match
    new        a new paper with the facts from the file
    linked     it is already on the list and is now linked to `papers`, chosen by the reader
    ambiguous  it may mean one of `candidates`; kept as a plain row
    unknown    no paper matches; kept as a plain row
    duplicate  it is the same as the row at `twin`, a line of the file; in Markdown both rows are kept
    listed     it is already on the list as `twin`
    left out   the reader excluded it
    """

    line: int
    section: str
    text: str
    status: Status
    papers: tuple[str, ...] = ()
    how: str = ""
    candidates: tuple[str, ...] = ()
    twin: str = ""
    depth: int = 0
    state: State = "todo"


@dataclass(slots=True)
class ImportPlan:
    """The plan of an import.

    own         whether the reader's list has rows and is extended; otherwise a new list is made
    marks       new states by subject; new_marks: states of new rows without papers, with their section
    tags        new tags by subject
    abstracts   abstracts of papers without one
    facts       facts of listed papers whose title, authors or year are missing
    pdfs        files named in the list, for papers without a PDF
    cited       papers by the cite keys of their entries; "" for an excluded entry
    problems    unreadable parts of the file
    """

    incoming: Incoming
    own: bool
    found: list[ImportRow] = field(default_factory=list)
    additions: Additions = field(default_factory=Additions)
    marks: dict[str, State] = field(default_factory=dict)
    new_marks: list[tuple[str, str, State]] = field(default_factory=list)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    abstracts: dict[str, str] = field(default_factory=dict)
    facts: dict[str, GivenFacts] = field(default_factory=dict)
    pdfs: dict[str, Path] = field(default_factory=dict)
    cited: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    title: str = ""
    note: str = ""

    @property
    def kept(self) -> int:
        """The number of rows of the file that the list gains or links. Two entries of a .bib file for one
        paper count once.
        """
        known = ("listed", "left out", *(("duplicate",) if self.incoming.is_bibtex else ()))
        return sum(one.status not in known for one in self.found)

    def changes(self, library: Library) -> bool:
        """Whether `apply` would change anything except PDFs."""
        said = self.marks or self.new_marks or self.tags or self.abstracts or self.facts
        known = incoming.cited(library.home, self.incoming.name)
        kept = incoming.is_kept(library.home, self.incoming) and self.cited.items() <= known.items()
        return not self.own or bool(self.additions or said) or not kept


@dataclass(frozen=True, slots=True)
class Choices:
    """The reader's decisions by a row's line in the file: its papers (empty for a plain row), or to leave it
    out.
    """

    papers: Mapping[int, Sequence[str]] = field(default_factory=dict)
    left_out: Collection[int] = ()


def plan(library: Library, source: Path | Incoming, choices: Choices | None = None) -> ImportPlan:
    """Plan an import without writing anything.

    Raises ReadtrackError if the file cannot be read or has no row, if a chosen paper is not known, or if a
    choice names a line without a row.
    """
    came = incoming.read(source) if isinstance(source, Path) else source
    choices = choices or Choices()
    listed = library.catalog
    has_content = bool(listed.sections) or any(paper.line for paper in listed.papers.values())
    own = library.is_readers and has_content
    known = _Known(library, own, choices, cited=incoming.cited(library.home, came.name))
    made = ImportPlan(came, own)
    if came.is_bibtex:
        _plan_bibtex(made, known)
    else:
        _plan_markdown(made, known, came.text)
    if not made.found:
        why = "A row begins with '- ', '* ' or '1. ', a BibTeX entry with '@'."
        raise ReadtrackError(f"{came.name} has no row. {why}")
    lines = {one.line for one in made.found}
    if wrong := sorted({*choices.papers, *choices.left_out} - lines):
        raise ReadtrackError(f"line {wrong[0]} of {came.name} has no row. The table shows the lines.")
    made.additions.papers += known.brought()
    return made


def plan_list(library: Library, other: Catalog) -> ImportPlan:
    """Plan the addition of all rows and papers of another home's list. Ignores its ticks, which are in its
    journal.
    """
    known = _Known(library, True, Choices(), also=other)
    text = "".join(item.before + item.raw for item in markdown.outline(other, {}))
    made = ImportPlan(Incoming(other.path.name, text, other.path.parent), True)
    _plan_markdown(made, known, text)
    known.want([id_ for id_ in other.papers if id_ not in library.catalog.papers])
    made.additions.papers += known.brought()
    return made


class _Known:
    """All known papers, including shipped ones, and the rows of the reader's list."""

    def __init__(
        self,
        library: Library,
        own: bool,
        choices: Choices,
        also: Catalog | None = None,
        cited: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        ships = load.load_cached(load.shipped(), library.home.cache)
        self.library, self.cited = library, cited
        self.listed = library.catalog if library.is_readers else ships
        others = [ships] if also is None else [also, ships]
        self.papers: dict[str, Paper] = dict(self.listed.papers)
        for other in others:
            self.papers = {**other.papers, **self.papers}
        self.matcher = Matcher(self.papers, [self.listed, *others])
        self.takes_ids = also is None  # rows without papers in another home's list stay without papers
        self.left_out = choices.left_out
        self.chosen = {line: self._named(queries) for line, queries in choices.papers.items()}
        self._wanted: dict[str, None] = {}  # papers that the reader's list does not have yet
        self.rows = _Rows(self.listed if own else None)

    def _named(self, queries: Sequence[str]) -> tuple[str, ...]:
        """The ids of the papers that the reader chose, even if only the shipped list has them."""
        return tuple(dict.fromkeys(linking.find_paper(self.library, self.papers, one) for one in queries))

    def match(self, text: str, line: int) -> Match:
        chosen = self.chosen.get(line)
        return self.matcher.match(text) if chosen is None else Match(chosen, "chosen")

    def match_entry(self, entry: bibtex.BibEntry) -> Match:
        chosen = self.chosen.get(entry.line)
        if chosen is not None:
            return Match(chosen, "chosen")
        if (paper := self.cited.get(entry.key, "")) in self.papers:
            return Match((paper,), "earlier import")
        return self.matcher.match_entry(entry.title, entry.year, entry.sources)

    def relink(self, made: ImportPlan, line: int, place: Place, row: Row) -> bool:
        """Link an existing row to the chosen papers if they differ from its current ones, and return
        whether they differ.
        """
        chosen = self.chosen.get(line)
        if chosen is None or set(chosen) == set(row.papers):
            return False
        made.additions.links[place] = chosen
        self.want(chosen)
        return True

    def learn(self, paper: Paper) -> Paper:
        """Register a new paper of the file, so that later rows with its id match it."""
        self.papers[paper.id] = paper
        self.matcher.learn(paper)
        return paper

    def want(self, papers: Sequence[str]) -> None:
        self._wanted.update(dict.fromkeys(papers))

    def brought(self) -> list[Paper]:
        """The shipped papers to add, with those that they build on."""
        return linking.needed(self.listed, self.papers, self._wanted)

    def is_silent(self, subject: str) -> bool:
        """Whether the reader has no state, tag or rating for the subject."""
        return self.library.since(subject) is None and self.library.state(subject) == "todo"


class _Rows:
    """The rows of a list by section and text, each with its place."""

    def __init__(self, listed: Catalog | None) -> None:
        sections = listed.sections if listed else ()
        self.sections = {letters(one.title): number for number, one in reversed(list(enumerate(sections)))}
        self._here: dict[tuple[str, str], deque[tuple[Place, Row]]] = {}
        self._anywhere: dict[str, list[tuple[Place, Row]]] = {}
        self._of: dict[tuple[str, ...], tuple[Place, Row]] = {}
        self._naming: dict[str, tuple[Place, Row]] = {}
        self.prose = {
            (letters(one.title), letters(line)) for one in sections for line in one.note.splitlines()
        }
        for place, section, item in places(listed) if listed else ():
            words = letters(item.text) or item.text
            if isinstance(item, Note):
                self.prose.add((letters(section.title), words))
                continue
            self._here.setdefault((letters(section.title), words), deque()).append((place, item))
            self._anywhere.setdefault(words, []).append((place, item))
            for id_ in item.papers:
                self._naming.setdefault(id_, (place, item))
            if item.papers:
                self._of.setdefault(tuple(sorted(item.papers)), (place, item))

    def take(self, section: str, text: str) -> tuple[Place, Row] | None:
        """The next row with this text in the section, or the only such row elsewhere."""
        words = letters(text) or text
        here = self._here.get((letters(section), words))
        if here:
            return here.popleft()
        anywhere = self._anywhere.get(words, [])
        return anywhere[0] if len(anywhere) == 1 else None

    def naming(self, papers: Sequence[str]) -> tuple[Place, Row] | None:
        """The first row that names the paper, perhaps with others."""
        return self._naming.get(papers[0]) if papers else None

    def with_papers(self, papers: Sequence[str]) -> tuple[Place, Row] | None:
        return self._of.get(tuple(sorted(papers)))


# Markdown


def _plan_markdown(made: ImportPlan, known: _Known, text: str) -> None:
    document = markdown.parse(text, made.incoming.section)
    made.title = document.title or made.incoming.title
    section: NewSection | None = None
    place: Place | None = None  # position of the section in the reader's list, if present
    title = ""
    notes: list[str] = []
    # The enclosing rows of the next row: each is new, or has a place in the reader's list.
    around: list[tuple[NewRow | None, Place | None]] = []
    lines_of: dict[tuple[str, ...], int] = {}
    for item in document.items:
        if item.kind == "section":
            title, around = item.text, []
            number = known.rows.sections.get(letters(title))
            section, place = (None, (number,)) if number is not None else (NewSection(title), None)
            if section is not None:
                made.additions.sections.append(section)
        elif item.kind == "prose" and not title:
            notes.append(item.text)
        elif item.kind == "prose":
            around = []
            if (letters(title), letters(item.text) or item.text) not in known.rows.prose:
                _put(made, NewRow(item.text, prose=True), section, place, around)
        elif item.kind == "row":
            around = around[: item.depth]
            if item.line in known.left_out:
                made.found.append(ImportRow(item.line, title, item.text, "left out", depth=item.depth))
                continue
            found, at = _row(made, known, item, title, lines_of)
            made.found.append(found)
            _offer_pdf(made, known, found.papers, links_in(item.text))
            if at is not None:
                around.append((None, at))
                continue
            new = NewRow(item.text, item.state == "read", found.papers)
            known.want(found.papers)
            _mark_new(made, known, new, title, item.state)
            _put(made, new, section, place, around)
            around.append((new, None))
    made.note = "\n".join(notes)


def _row(
    made: ImportPlan, known: _Known, item: markdown.Item, section: str, lines_of: dict[tuple[str, ...], int]
) -> tuple[ImportRow, Place | None]:
    """The status of a row and, if the reader's list already has the row, its place there."""
    match = known.match(item.text, item.line)

    def found(status: Status, papers: tuple[str, ...], twin: str = "") -> ImportRow:
        how, maybe = match.how, match.candidates
        return ImportRow(
            item.line, section, item.text, status, papers, how, maybe, twin, item.depth, item.state
        )

    there = known.rows.take(section, item.text)
    if there is None and match.how != "chosen":  # a row that the reader resolved keeps the reader's text
        there = known.rows.with_papers(match.papers)
    if there is not None:
        place, row = there
        if known.relink(made, item.line, place, row):
            return found("linked", match.papers), place
        _mark(made, known, row.papers or (row.subject,), item.state, row.done)
        return found("listed", row.papers, "" if letters(row.text) == letters(item.text) else row.text), place
    if not match.papers:
        if (paper := _new_paper(known, item, match)) is None:
            return found("ambiguous" if match.candidates else "unknown", ()), None
        lines_of[(paper.id,)] = item.line
        return replace(found("new", (paper.id,)), how=BY_SOURCE[paper.sources[0].kind]), None
    first = lines_of.setdefault(tuple(sorted(match.papers)), item.line)
    if first != item.line:
        return found("duplicate", match.papers, f"line {first}"), None
    return found("matched", match.papers), None


def _new_paper(known: _Known, item: markdown.Item, match: Match) -> Paper | None:
    """A new paper for a row with an unknown arXiv id or DOI."""
    ids = [source for source in sources_in(item.text) if source.kind in ("arxiv", "doi")]
    if len(ids) != 1 or match.candidates or match.how or not known.takes_ids:
        return None
    return known.learn(unfetched(known.listed._replace(papers=known.papers), item.text))


def _put(
    made: ImportPlan,
    new: NewRow,
    section: NewSection | None,
    place: Place | None,
    around: list[tuple[NewRow | None, Place | None]],
) -> None:
    """Add the row below its enclosing row, or to its section, which may be new or on the reader's list."""
    row, at = around[-1] if around else (None, place)
    if row is not None:
        row.rows.append(new)
    elif at is not None:
        made.additions.rows.setdefault(at, []).append(new)
    elif section is not None:
        section.rows.append(new)


def _mark(made: ImportPlan, known: _Known, subjects: Sequence[str], state: State, done: bool = False) -> None:
    """Take over a state from the file if the reader has none."""
    if state != "todo" and not (done and state == "read"):
        for subject in subjects:
            if known.is_silent(subject):
                made.marks.setdefault(subject, state)


def _mark_new(made: ImportPlan, known: _Known, new: NewRow, section: str, state: State) -> None:
    """Take over the state of a new row: a tick into the list, other states into the journal."""
    if state in ("reading", "skipped"):
        _mark(made, known, new.papers, state)
        if not new.papers:
            made.new_marks.append((section, new.text, state))


# BibTeX


def _plan_bibtex(made: ImportPlan, known: _Known) -> None:
    read = bibtex.read(made.incoming.text)
    made.problems = read.problems
    made.title = made.incoming.title
    title = made.incoming.section
    section = NewSection(title)
    number = known.rows.sections.get(letters(title))
    taken = {*known.papers, *(alias.casefold() for p in known.papers.values() for alias in p.aliases)}
    seen: dict[str, list[bibtex.BibEntry]] = {}
    for entry in read.entries:
        if entry.line in known.left_out:
            made.found.append(ImportRow(entry.line, "", entry.wording, "left out"))
            made.cited[entry.key] = ""
            continue
        found, new = _entry(known, entry, seen, taken, made)
        if len(found.papers) == 1:
            made.cited.setdefault(entry.key, found.papers[0])
        made.found.append(found)
        _take_over(made, known, found.papers, entry)
        if new is not None:
            rows = section.rows if number is None else made.additions.rows.setdefault((number,), [])
            rows.append(new)
    if section.rows:
        made.additions.sections.append(section)


def _entry(
    known: _Known,
    entry: bibtex.BibEntry,
    seen: dict[str, list[bibtex.BibEntry]],
    taken: set[str],
    made: ImportPlan,
) -> tuple[ImportRow, NewRow | None]:
    match = known.match_entry(entry)
    state: State = "read" if entry.is_read else "todo"

    def found(status: Status, papers: tuple[str, ...], how: str = match.how, twin: str = "") -> ImportRow:
        return ImportRow(
            entry.line, "", entry.wording, status, papers, how, match.candidates, twin, state=state
        )

    what = f"paper {match.papers[0]}" if match.papers else letters(entry.title) or entry.key
    same = seen.setdefault(what, [])
    if first := next((one for one in same if match.papers or not _differ(one.sources, entry.sources)), None):
        return found("duplicate", match.papers, twin=f"line {first.line}"), None
    same.append(entry)
    own = _listed(known, entry)
    if own is not None and known.relink(made, entry.line, *own):
        return found("linked", match.papers), None
    there = own or known.rows.naming(match.papers)
    if there is not None:
        _, row = there
        _mark(made, known, match.papers or row.papers or (row.subject,), state, row.done)
        return found("listed", match.papers or row.papers, twin=row.text), None
    text, done = entry.wording, entry.is_read
    if match.papers:
        known.want(match.papers)
        return found("matched", match.papers), NewRow(text, done, match.papers)
    if not match.candidates and entry.title:
        paper = _paper(entry, taken)
        made.additions.papers.append(paper)
        how = BY_SOURCE[entry.sources[0].kind] if entry.sources else "title"
        return found("new", (paper.id,), how), NewRow(text, done, (paper.id,))
    return found("ambiguous" if match.candidates else "unknown", ()), NewRow(entry.linked_wording, done)


def _listed(known: _Known, entry: bibtex.BibEntry) -> tuple[Place, Row] | None:
    """The listed row with the entry's text, unless it has other papers."""
    there = known.rows.take("", entry.linked_wording) or known.rows.take("", entry.wording)
    if there and any(known.matcher.differs(id_, entry.sources) for id_ in there[1].papers):
        return None
    return there


def _differ(one: Sequence[Source], other: Sequence[Source]) -> bool:
    """Whether two entries are different papers by their arXiv ids or DOIs."""
    kinds = {source.kind for source in one} & {source.kind for source in other} & {"arxiv", "doi"}
    keys = [{source_key(source) for source in sources if source.kind in kinds} for sources in (one, other)]
    return bool(kinds) and not keys[0] & keys[1]


def _paper(entry: bibtex.BibEntry, taken: set[str]) -> Paper:
    id_ = make_id(entry.title, taken)
    taken.add(id_)
    return Paper(
        id=id_,
        title=entry.title,
        authors=entry.authors,
        year=entry.year or 0,
        sources=entry.sources,
        aliases=(),
        builds_on=(),
        problem="",
        idea="",
        result="",
        line=0,
    )


def _take_over(made: ImportPlan, known: _Known, papers: Sequence[str], entry: bibtex.BibEntry) -> None:
    """Take over keywords as tags, and the abstract, PDF and facts that the paper lacks."""
    if len(papers) == 1:
        id_ = papers[0]
        given = {"title": entry.title, "authors": entry.authors, "year": entry.year}
        paper = known.listed.papers.get(id_)
        if paper is not None and any(given[name] for name in paper.missing):
            made.facts.setdefault(id_, GivenFacts(entry.title, entry.authors, entry.year))
        has = known.library.tags(id_)
        if missing := tuple(tag for tag in entry.tags if tag not in has):
            made.tags.setdefault(id_, missing)
        if entry.abstract and not (known.library.home.metadata / f"{id_}.json").exists():
            made.abstracts.setdefault(id_, entry.abstract)
    _offer_pdf(made, known, papers, entry.pdfs)


def _offer_pdf(made: ImportPlan, known: _Known, papers: Sequence[str], written: Sequence[str]) -> None:
    """Offer the first existing PDF for a single paper without one."""
    if len(papers) != 1 or (known.library.home.pdfs / f"{papers[0]}.pdf").exists():
        return
    file = next((path for one in written if (path := made.incoming.pdf(one)) is not None), None)
    if file is not None:
        made.pdfs.setdefault(papers[0], file)


# Writing


def target(library: Library) -> Path:
    """The file that an import writes: the reader's list, which may not exist yet."""
    path = library.catalog.path
    return path if library.is_readers else library.home.papers_yaml


def apply(library: Library, made: ImportPlan, *, pdfs: bool = False) -> list[str]:
    """Carry out the plan, and return messages about PDFs that could not be attached.

    With `pdfs`, the PDFs that the file names are copied, too.

    Raises ReadtrackError, with the list unchanged, if the list cannot be written.
    """
    home = library.home
    path = target(library)
    try:
        head = library.catalog.path if library.is_readers else load.shipped()
        text = head.read_text(encoding="utf-8-sig")
        before = path.read_bytes() if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ReadtrackError(f"could not read {path}: {error}.") from error
    if not made.own:
        write(home, path, before, fresh(text, made.title, made.note, made.additions))
    elif made.additions:
        assert before is not None
        write(home, path, before, extended(before.decode("utf-8"), made.additions))
    incoming.keep(home, made.incoming, made.cited)
    rows = {place: item for place, _, item in places(library.catalog) if isinstance(item, Row)}
    links = [(rows[place], papers) for place, papers in made.additions.links.items()]
    linked = linking.said_of(links, library)
    library.reload()
    if fill_in(home, path, [library.catalog.papers[id_] for id_ in made.facts], made.facts):
        library.reload()
    linking.carry(library, linked)
    library.change_together(_said(library, made))
    _save_abstracts(library, made)
    return _attach(library, made.pdfs) if pdfs else []


def _said(library: Library, made: ImportPlan) -> list[tuple[str, dict[str, Any]]]:
    """The changes to the journal. New rows are found by their text, because they get their names only now."""
    said: list[tuple[str, dict[str, Any]]] = [
        (subject, {"state": state}) for subject, state in made.marks.items()
    ]
    rows = _Rows(library.catalog)
    for section, text, state in made.new_marks:
        if there := rows.take(section, text):
            said.append((there[1].subject, {"state": state}))
    return said + [(subject, {"tag": f"+{tag}"}) for subject, tags in made.tags.items() for tag in tags]


def _save_abstracts(library: Library, made: ImportPlan) -> None:
    """Save abstracts as metadata with their origin. A sync replaces them with arXiv's own."""
    folder = library.home.metadata
    if made.abstracts:
        library.home.ensure(folder)
    source = f"imported from {one_line(made.incoming.name)} on {date.today().isoformat()}"
    try:
        for id_, abstract in made.abstracts.items():
            document = {"title": library.catalog.papers[id_].title, "abstract": abstract, "source": source}
            write_text(folder / f"{id_}.json", json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise ReadtrackError(f"could not write the abstracts into {folder}: {error.strerror}.") from error


def _attach(library: Library, pdfs: Mapping[str, Path]) -> list[str]:
    from readtrack.sync.files import attach

    problems = []
    for paper, file in pdfs.items():
        try:
            attach(library.home, paper, file)
        except ReadtrackError as error:
            problems.append(str(error))
    return problems
