"""Exports the list for other programs: Markdown, BibTeX, CSV, and JSON with everything.

The JSON has the list, its papers and states for scripts. Its key `files` has every file of the home that
cannot be regenerated, so importing it into an empty home restores everything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import readtrack
from readtrack import regular
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Paper, Row, Section
from readtrack.reading_list.insert import ADDED
from readtrack.reading_list.journal import State
from readtrack.reading_list.sources import letters, source_key, sources_in
from readtrack.text import counted, one_line, quoted
from readtrack.transfer import bibtex, foreign, markdown
from readtrack.transfer.incoming import IMPORTED, Incoming, cited, kept_lists
from readtrack.transfer.matching import Matcher

FORMAT = "readtrack-export"
_LARGEST_FILE = 64 << 20  # bytes of one file in an export; to move larger files, copy the home folder
_LARGEST_EXPORT = 1 << 30  # bytes of an export that can be read, because it is held in memory
_TICKED = ("read", "implemented")
_NAMED = 3  # maximum number of rows named in a message


def to_markdown(library: Library) -> str:
    """The checklist in the reader's own lines, with updated ticks."""
    states = {row.key: _state(library, row) for row in _rows(library)}
    items = markdown.outline(library.catalog, states, _links(library))
    originals = [(one.title, document) for one, document in _kept_documents(library)]
    # The title is not a heading in the file, but comes from the file's name or its front matter.
    made_up = {
        title
        for name, document in originals
        if all(item.kind != "title" for item in document.items)
        for title in (name, document.title)
    }
    items = [item for item in items if item.kind != "title" or item.text not in made_up]
    written = [item for _, document in originals for item in document.items]
    if written and not any(item.kind == "section" and item.raw for item in written):
        items = [item for item in items if item.kind != "section" or not _is_invented(item.text)]
    return markdown.merged(items, [document for _, document in originals])


def _links(library: Library) -> dict[str, str]:
    """Links to add to rows, by row key, because their text alone would not match the same papers again."""
    papers = library.catalog.papers
    ships = load.load_cached(load.shipped(), library.home.cache)
    matcher = Matcher(ships.papers, [ships])  # papers that another home would know
    found = {}
    for row in _rows(library):
        named = [papers[id_] for id_ in row.papers]
        has = set(map(source_key, sources_in(row.text)))
        linked = [one for one in named if one.sources and source_key(one.sources[0]) not in has]
        if linked and set(matcher.match(row.text).papers) != set(row.papers):
            found[row.key] = " ".join(one.link for one in linked)
    return found


def unsaid(library: Library, form: str) -> list[str]:
    """Sentences about data that an export in this format leaves out."""
    if form == "markdown":
        links, kept = _links(library), {item.key for _, one in _kept_documents(library) for item in one.items}
        lost = [row for row in _rows(library) if row.key in links and ("row", one_line(row.text)) in kept]
        if not lost:
            return []
        rows = f"{counted(len(lost), 'row')} {'is' if len(lost) == 1 else 'are'} linked to a paper that"
        return [f"{rows} your own words do not name. Your lines stay as they are, and JSON keeps the links."]
    if form != "bibtex":
        return []
    imported = _imported(library).of_row
    bare = [row for row in _rows(library) if not row.papers and letters(row.text) not in imported]
    if not bare:
        return []
    named = ", ".join(quoted(one_line(row.text)) for row in bare[:_NAMED]) + ", ..." * (len(bare) > _NAMED)
    rows = f"{counted(len(bare), 'row')} {'has' if len(bare) == 1 else 'have'} no paper and so no entry"
    return [f"{rows}: {named}. Link the rows to papers first."]


def _kept_documents(library: Library) -> list[tuple[Incoming, markdown.Document]]:
    lists = kept_lists(library.home, bibtex=False)
    return [(one, markdown.parse(one.text, one.section)) for one in lists]


def _is_invented(heading: str) -> bool:
    """Whether readtrack invented this section name, for rows without a section."""
    return heading in (markdown.UNNAMED, ADDED) or heading.startswith(IMPORTED)


def _state(library: Library, row: Row) -> State:
    """The state shown by the row's box."""
    if is_ticked(library, row):
        return "read"
    state = library.row_state(row)
    return state if state in ("reading", "skipped") else "todo"


def is_ticked(library: Library, row: Row) -> bool:
    """Whether the row is ticked, by the journal, or by the list if the journal has no state."""
    subjects = row.papers or (row.subject,)
    if all(library.since(subject) is None for subject in subjects):
        return row.done and library.is_readers
    return all(library.state(s) in (*_TICKED, "skipped") for s in subjects) and any(
        library.state(s) in _TICKED for s in subjects
    )


def _rows(library: Library) -> Iterator[Row]:
    return (item for _, item in library.catalog.walk() if isinstance(item, Row))


# BibTeX


def to_bibtex(library: Library) -> str:
    """An entry for every paper on the list: imported entries unchanged and in the order of their files,
    then the others in the order of the list. If several entries with different keys cite the same paper,
    all are kept.
    """
    imported = _imported(library)
    listed = dict.fromkeys(id_ for row in _rows(library) for id_ in row.papers)
    works = {_work(library.catalog.papers[id_]): id_ for id_ in reversed(listed)}
    entries: dict[str, None] = {}
    for row in _rows(library):
        for id_ in row.papers:
            own = imported.of_paper.get(id_, [])
            if not own and id_ in works.values():
                own = [entry_of(library, library.catalog.papers[id_])]
            entries |= dict.fromkeys(own)
        if not row.papers:
            entries |= dict.fromkeys(imported.of_row.get(letters(row.text), []))
    own = [entry for entry in imported.in_files if entry in entries]
    first = next((one.text for one in kept_lists(library.home, bibtex=True)), "")
    blank = first[: len(first) - len(first.lstrip("\n"))]  # Zotero's files begin with an empty line
    every = "\n\n".join(dict.fromkeys([*imported.shared, *own, *entries]))
    return f"{blank}{every}\n" if entries else ""


def _work(paper: Paper) -> tuple[str, str]:
    """A key that is the same for a work and its parts, which are cited together."""
    return bibtex.cited_title(paper), source_key(paper.sources[0]) if paper.sources else ""


def entry(library: Library, paper: Paper) -> str:
    """The paper's entry: the imported one, or one made from its facts."""
    own = _imported(library).of_paper.get(paper.id)
    return own[0] if own else entry_of(library, paper)


def entry_of(library: Library, paper: Paper) -> str:
    is_read = library.state(paper.id) in _TICKED
    tags = sorted(library.tags(paper.id))
    return bibtex.entry(paper, library.metadata(paper.id), tags=tags, is_read=is_read)


class _Imported(NamedTuple):
    """Imported entries by paper, and by the normalised text of their row if they have no paper. All are in
    the order of the files, with the definitions that they need (@string, @preamble).
    """

    of_paper: dict[str, list[str]]
    of_row: dict[str, list[str]]
    in_files: list[str]
    shared: list[str]


def _imported(library: Library) -> _Imported:
    """Collect the imported entries. A link that the reader gave a row takes precedence over the choice
    made during the import.
    """
    found = _Imported({}, {}, [], [])
    files = list(kept_lists(library.home, bibtex=True))
    matcher = Matcher(library.catalog.papers) if files else None
    rows = {letters(row.text): row for row in _rows(library)} if files else {}
    for file in files:
        read, decided = bibtex.read(file.text), cited(library.home, file.name)
        found.shared.extend(read.shared)
        keys: set[str] = set()
        for one in read.entries:
            assert matcher is not None
            if one.key in keys:
                continue  # BibTeX uses the first of two entries with the same key
            keys.add(one.key)
            words = [letters(one.linked_wording), letters(one.wording)]
            row = next((rows[word] for word in words if word in rows), None)
            if row is not None and not row.papers:
                found.of_row.setdefault(letters(row.text), []).append(one.raw)
                found.in_files.append(one.raw)
                continue
            paper = row.papers[0] if row is not None and len(row.papers) == 1 else decided.get(one.key)
            if paper is None:
                match = matcher.match_entry(one.title, one.year, one.sources)
                paper = next(iter(match.papers), "")
            if known := library.catalog.papers.get(paper):
                fields = bibtex.completed(one, known)
                is_read = library.state(paper) in _TICKED
                if is_read != one.is_read:
                    fields["readstatus"] = "read" if is_read else ""
                entry = bibtex.with_fields(one.raw, fields)
                found.of_paper.setdefault(paper, []).append(entry)
                found.in_files.append(entry)
    return found


# CSV and JSON


def to_csv(library: Library) -> str:
    """CSV with a line for each paper of each row, and for each row without papers."""
    import csv
    import io

    columns = (
        "section",
        "row",
        "paper",
        "title",
        "authors",
        "year",
        "state",
        "since",
        "rating",
        "tags",
        "source",
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    section = ""
    for _, item in library.catalog.walk():
        if isinstance(item, Section):
            section = item.title
        elif isinstance(item, Row):
            for subject in item.papers or (item.subject,):
                paper = library.catalog.papers.get(subject)
                facts = (
                    [paper.id, paper.title, "; ".join(paper.authors), paper.year or ""]
                    if paper
                    else ["", "", "", ""]
                )
                source = paper.link if paper else ""
                said = [library.state(subject), library.since(subject), library.rating(subject)]
                tags = " ".join(sorted(library.tags(subject)))
                writer.writerow(
                    [_harmless(cell) for cell in (section, item.text, *facts, *said, tags, source)]
                )
    return out.getvalue()


def _harmless(cell: object) -> object:
    """The cell, quoted if a spreadsheet would treat it as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def write_json(library: Library, output: IO[str], *, pdfs: bool = False) -> list[str]:
    """Write the JSON export, and return the names of files that are too large for it.

    pdfs  also include PDFs that a sync could fetch again; the reader's own PDFs are always included
    """
    papers = {id_: one for id_, one in library.catalog.papers.items() if one.line or id_ in library.listed}
    head = {
        "format": FORMAT,
        "version": 1,
        "readtrack": readtrack.__version__,
        "checklist": [row_facts(library, row) for row in _rows(library)],
        "papers": {id_: paper_facts(library, paper) for id_, paper in papers.items()},
    }
    # File by file, because all of them together may not fit into memory.
    output.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "files": {')
    left_out, comma = [], ""
    for name, path in _files(library, pdfs):
        try:
            data = regular.read_bytes(path, _LARGEST_FILE)
        except OSError:
            left_out.append(name)
            continue
        output.write(f"{comma}\n  {json.dumps(name)}: {json.dumps(_content(data))}")
        comma = ","
    output.write("\n }\n}\n")
    return left_out


def row_facts(library: Library, row: Row) -> dict[str, Any]:
    return {
        "text": row.text,
        "key": row.key,
        "ticked": is_ticked(library, row),
        "state": library.row_state(row),
        "papers": list(row.papers),
        **({} if row.papers else said(library, row.subject)),
    }


def paper_facts(library: Library, paper: Paper) -> dict[str, Any]:
    """A paper's facts, and the user's state, tags, rating and note."""
    return {
        "id": paper.id,
        "title": paper.title,
        "authors": list(paper.authors),
        "year": paper.year or None,
        "sources": [{"kind": s.kind, "value": s.value, "url": s.url, "note": s.note} for s in paper.sources],
        "aliases": list(paper.aliases),
        "builds_on": list(paper.builds_on),
        **said(library, paper.id),
        "runnable": paper.id in library.runnable(),
    }


def said(library: Library, subject: str) -> dict[str, Any]:
    return {
        "state": library.state(subject),
        "since": library.since(subject),
        "tags": sorted(library.tags(subject)),
        "rating": library.rating(subject),
        "note": library.note(subject),
    }


def _files(library: Library, pdfs: bool) -> Iterator[tuple[str, Path]]:
    """Every file of the home that cannot be regenerated, including the reader's list at its actual
    location, but not the shipped list.
    """
    home = library.home
    fetched = set() if pdfs else set(_fetched(home))
    for name in foreign.survey(home.root).files if home.root.is_dir() else ():
        if home.root / name not in fetched:
            yield name, home.root / name
    if library.is_readers and library.catalog.path != home.papers_yaml:
        yield "papers.yaml", library.catalog.path.resolve()


def _content(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _fetched(home: Home) -> Iterator[Path]:
    from readtrack.sync.files import Pdfs

    pdfs = Pdfs(home)
    for path in home.pdfs.glob("*.pdf"):
        record = pdfs.record(path.stem)
        if record is not None and record.origin == "fetched":
            yield path
            yield path.with_suffix(".json")


# Restoring


def unpack(file: Path, folder: Home) -> None:
    """Write the files of an export into an empty folder, from which they are merged.

    Raises ReadtrackError if it is not an export, or a file in it is damaged.
    """
    try:
        for name, data in _checked(file):
            path = folder.root / name
            folder.ensure(path.parent)
            path.write_bytes(data)
    except (OSError, ValueError) as error:
        raise ReadtrackError(f"{file} cannot be unpacked: {one_line(str(error))}.") from error


def _checked(file: Path) -> Iterator[tuple[str, bytes]]:
    """The export's files that belong in a home, by path. Paths outside the home are rejected."""
    try:
        document = json.loads(regular.read_bytes(file, _LARGEST_EXPORT))
    except OSError as error:
        raise ReadtrackError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ReadtrackError(f"{file} is not a JSON document: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ReadtrackError(
            f"{file} is not a readtrack export: `readtrack export --format json` writes one."
        )
    if document.get("version") != 1 or not isinstance(document.get("files"), dict):
        raise ReadtrackError(f"{file} was written by another version of readtrack.")
    for name, content in document["files"].items():
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
            raise ReadtrackError(f"{file}: it contains a file that would be written outside the home.")
        if foreign.limit(name) is None:
            continue
        try:
            text = isinstance(content, str)
            yield name, content.encode() if text else base64.b64decode(content["base64"], validate=True)
        except (TypeError, KeyError, ValueError) as error:
            raise ReadtrackError(f"{file}: {one_line(name)} in it is damaged.") from error
