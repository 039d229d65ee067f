"""Bringing a list into the library: first a plan that says what each row is, then, if wanted, the writing.

The reader's file is kept as it is in `imported/`, so that an export gives back their own lines. Importing it
again changes nothing, and an import never takes a tick away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Catalog, Note, Paper, Row, Section
from readtrack.sync.add import make_id
from readtrack.text import one_line, quoted
from readtrack.transfer import bibtex, markdown
from readtrack.transfer.lists import Additions, NewRow, NewSection, extended, fresh, write
from readtrack.transfer.matching import Match, Matcher, letters

Status = Literal["matched", "new", "ambiguous", "unknown", "duplicate", "listed"]

LIMIT = 32 * 1024 * 1024  # bytes of a file to import


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the file and what becomes of it.

    matched    it means `papers`, known by `how`
    new        a paper that is put on the list with the facts that the file gives
    ambiguous  it may mean one of `candidates`; kept as a row
    unknown    kept as a row
    duplicate  of the row at `twin`, a line of the file; in Markdown it is kept as the reader has it
    listed     it is on the list already, as `twin`
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
    ticked: bool = False


@dataclass(slots=True)
class Plan:
    """What an import would do. `own`: the reader has a list already, which is extended; else one is made.

    ticks  subjects that become read; tags by subject; problems: what of the file could not be read
    """

    path: Path
    own: bool
    found: list[Found] = field(default_factory=list)
    additions: Additions = field(default_factory=Additions)
    ticks: list[str] = field(default_factory=list)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    title: str = ""
    note: str = ""
    source: str = ""

    def changes(self, home: Home) -> bool:
        return bool(
            not self.own
            or self.additions
            or self.ticks
            or self.tags
            or not _is_kept(home, self.path, self.source)
        )


def read_text(path: Path) -> str:
    """Raises ReadtrackError for what is no text of a reading list."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReadtrackError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > LIMIT:
        raise ReadtrackError(f"{path} is larger than {LIMIT // 2**20} MiB, so hardly a reading list.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ReadtrackError(f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8.") from error


def plan(library: Library, path: Path, chosen: Mapping[int, Sequence[str]] | None = None) -> Plan:
    """What importing the file would do; writes nothing. `chosen`: papers by the line of their row.

    Raises ReadtrackError if the file cannot be read or holds no row, or a chosen paper is not known.
    """
    text = read_text(path)
    listed = library.catalog
    own = listed.path != load.shipped()
    known = _Known(library, own, {line: _papers(library, ids) for line, ids in (chosen or {}).items()})
    made = Plan(path, own, source=text)
    if path.suffix.casefold() in (".bib", ".bibtex"):
        _plan_bibtex(made, known, text)
    else:
        _plan_markdown(made, known, text)
    if not made.found:
        raise ReadtrackError(f"{path} has no row: a row begins with '- ', '* ' or '1. ', an entry with '@'.")
    made.additions.papers += known.brought()
    return made


def plan_list(library: Library, other: Catalog) -> Plan:
    """What it takes to have all rows and papers of another list too. Its ticks are not taken over: they are
    in its journal.
    """
    known = _Known(library, True, {}, also=other)
    made = Plan(other.path, True)
    items = markdown.outline(other, set())
    _plan_markdown(made, known, "".join(item.before + item.raw for item in items))
    known.want([id_ for id_ in other.papers if id_ not in library.catalog.papers])
    made.additions.papers += known.brought()
    return made


def _papers(library: Library, queries: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(library.find(query).id for query in queries))


class _Known:
    """What is known: papers, those of the list that ships too, and the rows that the reader has."""

    def __init__(
        self, library: Library, own: bool, chosen: dict[int, tuple[str, ...]], also: Catalog | None = None
    ) -> None:
        self.library, self.listed = library, library.catalog
        ships = load.load_cached(load.shipped(), library.home.cache) if own else self.listed
        others = [ships] if also is None else [also, ships]
        self.papers: dict[str, Paper] = dict(self.listed.papers)
        for other in others:
            self.papers = {**other.papers, **self.papers}
        self._matcher = Matcher(self.papers, [self.listed, *others])
        self._chosen = chosen
        self._wanted: dict[str, None] = {}  # papers that the reader's list does not have yet
        self.rows = _Rows(self.listed if own else None)

    def match(self, text: str, line: int) -> Match:
        if line in self._chosen:
            return Match(self._chosen[line], "chosen")
        return self._matcher.match(text)

    def match_entry(self, entry: bibtex.Entry) -> Match:
        if entry.line in self._chosen:
            return Match(self._chosen[entry.line], "chosen")
        matches = [self._matcher.by_source(source) for source in entry.sources]
        if found := next((match for match in matches if match.papers), None):
            return found
        near = self._matcher.by_title(entry.title)
        # An entry is one paper: a title of it must be the whole title.
        if near.papers and near.how in ("title", "nearly the title"):
            return near
        return Match(candidates=near.candidates)

    def want(self, papers: Sequence[str]) -> None:
        self._wanted.update(dict.fromkeys(id_ for id_ in papers if id_ not in self.listed.papers))

    def brought(self) -> list[Paper]:
        """The papers that come from the list that ships, with those that they build on."""
        wanted = list(self._wanted)
        for id_ in wanted:
            wanted += [
                p for p in self.papers[id_].builds_on if p not in wanted and p not in self.listed.papers
            ]
        return [self.papers[id_] for id_ in wanted]


class _Rows:
    """The rows of a list by section and wording, each with its place: indices of section and rows."""

    def __init__(self, listed: Catalog | None) -> None:
        self.sections: dict[str, int] = {}
        self._here: dict[tuple[str, str], list[tuple[tuple[int, ...], Row]]] = {}
        self._anywhere: dict[str, list[tuple[tuple[int, ...], Row]]] = {}
        self._of: dict[tuple[str, ...], tuple[tuple[int, ...], Row]] = {}
        self._naming: dict[str, tuple[tuple[int, ...], Row]] = {}
        self.prose: set[tuple[str, str]] = set()
        for number, section in enumerate(listed.sections if listed else ()):
            self.sections.setdefault(letters(section.title), number)
            self.prose.update((letters(section.title), letters(line)) for line in section.note.splitlines())
            self._collect(section, section.rows, (number,))

    def _collect(self, section: Section, items: Sequence[Row | Note], place: tuple[int, ...]) -> None:
        for index, item in enumerate(items):
            if isinstance(item, Note):
                self.prose.add((letters(section.title), letters(item.text)))
                continue
            one = ((*place, index), item)
            words = letters(item.text) or item.text
            self._here.setdefault((letters(section.title), words), []).append(one)
            self._anywhere.setdefault(words, []).append(one)
            for id_ in item.papers:
                self._naming.setdefault(id_, one)
            if item.papers:
                self._of.setdefault(tuple(sorted(item.papers)), one)
            self._collect(section, item.rows, one[0])

    def take(self, section: str, text: str) -> tuple[tuple[int, ...], Row] | None:
        """The next row of this wording in the section, else the only one anywhere."""
        words = letters(text) or text
        here = self._here.get((letters(section), words))
        if here:
            return here.pop(0)
        anywhere = self._anywhere.get(words, [])
        return anywhere[0] if len(anywhere) == 1 else None

    def naming(self, papers: Sequence[str]) -> tuple[tuple[int, ...], Row] | None:
        """The first row that names the paper, perhaps with others."""
        return self._naming.get(papers[0]) if papers else None

    def with_papers(self, papers: Sequence[str]) -> tuple[tuple[int, ...], Row] | None:
        return self._of.get(tuple(sorted(papers)))


# Markdown


def _plan_markdown(made: Plan, known: _Known, text: str) -> None:
    document = markdown.parse(text)
    made.title = next((i.text for i in document.items if i.kind == "title"), "") or one_line(made.path.stem)
    section: NewSection | None = None
    place: tuple[int, ...] | None = None  # of the section in the reader's list, if it is there
    title = ""
    notes: list[str] = []
    # The rows around the next one: each new, or at a place in the reader's list.
    around: list[tuple[NewRow | None, tuple[int, ...] | None]] = []
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
            if (letters(title), letters(item.text)) not in known.rows.prose:
                _put(made, NewRow(item.text, prose=True), section, place, around)
        elif item.kind == "row":
            around = around[: item.depth]
            found, row, at = _row(known, item, title, lines_of)
            made.found.append(found)
            if row is not None and at is not None:
                _tick(made, known, row, item.ticked)
                around.append((None, at))
                continue
            new = NewRow(item.text, item.ticked, found.papers)
            known.want(found.papers)
            _put(made, new, section, place, around)
            around.append((new, None))
    made.note = "\n".join(notes)


def _row(
    known: _Known, item: markdown.Item, section: str, lines_of: dict[tuple[str, ...], int]
) -> tuple[Found, Row | None, tuple[int, ...] | None]:
    """What the row is; and the row of the reader's list that it is already, with its place."""
    match = known.match(item.text, item.line)
    there = known.rows.take(section, item.text) or known.rows.with_papers(match.papers)
    if there is not None:
        at, row = there
        twin = "" if letters(row.text) == letters(item.text) else row.text
        return (
            Found(
                item.line,
                section,
                item.text,
                "listed",
                row.papers,
                twin=twin,
                depth=item.depth,
                ticked=item.ticked,
            ),
            row,
            at,
        )
    twin = ""
    status: Status = "ambiguous" if match.candidates else "unknown"
    if match.papers:
        first = lines_of.setdefault(tuple(sorted(match.papers)), item.line)
        status, twin = ("matched", "") if first == item.line else ("duplicate", f"line {first}")
    found = Found(
        item.line,
        section,
        item.text,
        status,
        match.papers,
        match.how,
        match.candidates,
        twin,
        item.depth,
        item.ticked,
    )
    return found, None, None


def _put(
    made: Plan,
    new: NewRow,
    section: NewSection | None,
    place: tuple[int, ...] | None,
    around: list[tuple[NewRow | None, tuple[int, ...] | None]],
) -> None:
    """Into the row around it, else into its section; a new one, or one of the reader's list."""
    row, at = around[-1] if around else (None, place)
    if row is not None:
        row.rows.append(new)
    elif at is not None:
        made.additions.rows.setdefault(at, []).append(new)
    elif section is not None:
        section.rows.append(new)


def _tick(made: Plan, known: _Known, row: Row, ticked: bool) -> None:
    """A tick that is new in the file counts where the reader has said nothing else."""
    if ticked and not row.done:
        subjects = row.papers or (row.subject,)
        library = known.library
        silent = [s for s in subjects if library.since(s) is None and library.state(s) == "todo"]
        made.ticks += [subject for subject in silent if subject not in made.ticks]


# BibTeX


def _plan_bibtex(made: Plan, known: _Known, text: str) -> None:
    read = bibtex.read(text)
    made.problems = read.problems
    made.title = one_line(made.path.stem)
    title = f"From {one_line(made.path.name)}"
    section = NewSection(title)
    number = known.rows.sections.get(letters(title))
    taken = {*known.papers, *(alias.casefold() for p in known.papers.values() for alias in p.aliases)}
    seen: dict[str, int] = {}
    for entry in read.entries:
        found, new = _entry(known, entry, seen, taken, made)
        made.found.append(found)
        if new is not None:
            rows = section.rows if number is None else made.additions.rows.setdefault((number,), [])
            rows.append(new)
    if section.rows:
        made.additions.sections.append(section)


def _entry(
    known: _Known, entry: bibtex.Entry, seen: dict[str, int], taken: set[str], made: Plan
) -> tuple[Found, NewRow | None]:
    text = f"{entry.title or entry.key} ({entry.year})" if entry.year else entry.title or entry.key
    match = known.match_entry(entry)
    same = match.papers[0] if match.papers else letters(entry.title) or entry.key
    first = seen.setdefault(same, entry.line)
    if first != entry.line:
        return Found(entry.line, "", text, "duplicate", match.papers, match.how, twin=f"line {first}"), None
    there = known.rows.take("", text) or known.rows.naming(match.papers)
    if there is not None:
        row = there[1]
        _tick(made, known, row, entry.is_read)
        _tag(made, known, match.papers, entry)
        return Found(
            entry.line, "", text, "listed", match.papers or row.papers, match.how, twin=row.text
        ), None
    papers, how = match.papers, match.how
    status: Status = "matched"
    if not papers and not match.candidates and entry.title and entry.year and entry.sources:
        id_ = make_id(entry.title, taken)
        taken.add(id_)
        authors = entry.authors or ("unknown",)
        made.additions.papers.append(
            Paper(
                id=id_,
                title=entry.title,
                authors=authors,
                year=entry.year,
                sources=entry.sources,
                aliases=(),
                builds_on=(),
                summary="",
                claim="",
                figure="",
                line=0,
            )
        )
        papers, status, how = (id_,), "new", entry.sources[0].kind
    elif papers:
        known.want(papers)
    else:
        status = "ambiguous" if match.candidates else "unknown"
    _tag(made, known, papers, entry)
    found = Found(entry.line, "", text, status, papers, how, match.candidates, ticked=entry.is_read)
    return found, NewRow(text, entry.is_read, papers)


def _tag(made: Plan, known: _Known, papers: Sequence[str], entry: bibtex.Entry) -> None:
    for id_ in papers:
        has = known.library.tags(id_) if id_ in known.listed.papers else set()
        if missing := tuple(tag for tag in entry.tags if tag not in has):
            made.tags[id_] = missing


# Writing


def apply(library: Library, made: Plan) -> None:
    """Write what the plan says. Raises ReadtrackError, with the list as it was, if that cannot be done."""
    home = library.home
    path = library.catalog.path if made.own else home.papers_yaml
    try:
        text = library.catalog.path.read_text(encoding="utf-8-sig")
        before = path.read_bytes() if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ReadtrackError(f"could not read {path}: {error}.") from error
    if not made.own:
        write(home, path, before, fresh(text, made.title, made.note, made.additions))
    elif made.additions:
        assert before is not None
        write(home, path, before, extended(before.decode("utf-8"), made.additions))
    _keep(home, made.path, made.source)
    library.reload()
    library.mark_all(made.ticks, "read")
    for subject, tags in made.tags.items():
        for tag in tags:
            library.tag(subject, tag)


def originals(home: Home) -> list[Path]:
    """The files that were imported, in the order in which they came."""
    return sorted(path for path in (home.root / "imported").glob("[0-9]*-*") if path.is_file())


def _kept(home: Home, path: Path) -> Path:
    """Where the file is kept: in the place of an earlier state of it."""
    there = originals(home)
    same = [one for one in there if one.name.partition("-")[2] == path.name]
    number = max((int(one.name.partition("-")[0]) for one in there), default=0) + 1
    return same[0] if same else home.root / "imported" / f"{number:03}-{path.name}"


def _is_kept(home: Home, path: Path, source: str) -> bool:
    kept = _kept(home, path)
    return kept.exists() and kept.read_bytes() == source.encode("utf-8")


def _keep(home: Home, path: Path, source: str) -> None:
    kept = _kept(home, path)
    home.ensure(kept.parent)
    try:
        with replacing(kept) as part:
            part.write_bytes(source.encode("utf-8"))
    except OSError as error:
        raise ReadtrackError(f"could not keep {quoted(path.name)}: {error.strerror}.") from error
