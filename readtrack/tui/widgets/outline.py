"""The checklist as a flat list of entries, and the choice of visible entries: pure functions over the
catalog.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from typing import Literal, NamedTuple

from readtrack.reading_list.catalog import Catalog, Note, Paper, Row, Section

Kind = Literal["title", "note", "section", "row", "paper", "plugin"]
OFF_LIST = "off-list"  # key of the section for runnable papers without a row


class Entry(NamedTuple):
    """One line of the checklist.

    key      unique path, such as `2/5/1`, by which cursor and folds survive a reload
    parents  keys of the enclosing entries, the section first
    subject  the owner of a state: a paper's id, or `row:<key>`; "" for titles, notes, sections and rows with
             several papers
    plugin   the name for running it: a paper's id, or the name of a plugin that is not on the list
    """

    kind: Kind
    key: str
    depth: int
    text: str
    parents: tuple[str, ...] = ()
    subject: str = ""
    section: Section | None = None
    row: Row | None = None
    paper: Paper | None = None
    plugin: str = ""

    @property
    def off_list(self) -> bool:
        """Whether this paper is not on the list."""
        return self.paper is not None and self.row is None

    @property
    def selectable(self) -> bool:
        return self.kind not in ("title", "note")


def outline(catalog: Catalog, plugins: Collection[str]) -> list[Entry]:
    """All entries in the reader's order. A row with one paper is one entry; with several papers, they follow
    the row. Runnable papers and plugins without a row come last.
    """
    entries = [Entry("title", "title", 0, catalog.title)]
    entries += [Entry("note", "note", 0, line) for line in catalog.note.splitlines() if line.strip()]
    for number, section in enumerate(catalog.sections):
        key = str(number)
        entries.append(Entry("section", key, 0, section.title, section=section))
        entries += [
            Entry("note", f"{key}/note", 1, line, (key,))
            for line in section.note.splitlines()
            if line.strip()
        ]
        entries += _rows(section.rows, key, (key,), 0, catalog)
    listed = {entry.plugin for entry in entries}
    others = sorted(set(plugins) - listed)
    if others:
        title = "Runnable, not on your list"
        entries.append(Entry("section", OFF_LIST, 0, title, section=Section(title, "", ())))
    for name in others:
        paper = catalog.papers.get(name)
        key = f"{OFF_LIST}/{name}"
        if paper is None:
            entries.append(Entry("plugin", key, 0, "", (OFF_LIST,), plugin=name))
        else:
            entries.append(Entry("paper", key, 0, paper.title, (OFF_LIST,), name, paper=paper, plugin=name))
    return entries


def _rows(
    items: tuple[Row | Note, ...], prefix: str, parents: tuple[str, ...], depth: int, catalog: Catalog
) -> Iterator[Entry]:
    for number, item in enumerate(items):
        key = f"{prefix}/{number}"
        if isinstance(item, Note):
            yield Entry("note", key, depth, item.text, parents)
            continue
        single = len(item.papers) == 1
        subject = item.papers[0] if single else "" if item.papers else item.subject
        paper = catalog.papers[subject] if single else None
        plugin = paper.id if paper is not None else ""
        yield Entry("row", key, depth, item.text, parents, subject, row=item, paper=paper, plugin=plugin)
        if not single:
            for paper_id in item.papers:
                paper = catalog.papers[paper_id]
                yield Entry(
                    "paper",
                    f"{key}/{paper_id}",
                    depth + 1,
                    paper.title,
                    (*parents, key),
                    paper_id,
                    row=item,
                    paper=paper,
                    plugin=paper_id,
                )
        yield from _rows(item.rows, key, (*parents, key), depth + 1, catalog)


def subjects(entries: Collection[Entry]) -> dict[str, set[str]]:
    """Maps each entry's key to the subjects in and below it, and "" to all subjects of the list."""
    found: dict[str, set[str]] = {"": set()}
    for entry in entries:
        below = found.setdefault(entry.key, set())
        if entry.subject:
            below.add(entry.subject)
            if OFF_LIST not in entry.parents:
                found[""].add(entry.subject)
            for parent in entry.parents:
                found[parent].add(entry.subject)
    return found


class EntryPlaces:
    """The positions of entries in the list, by key and by subject."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.by_key = {entry.key: index for index, entry in enumerate(entries)}
        self.by_subject: dict[str, list[int]] = {}
        for index, entry in enumerate(entries):
            if entry.subject and entry.selectable:
                self.by_subject.setdefault(entry.subject, []).append(index)


def visible(
    entries: list[Entry], found: Iterable[str] | None, folded: Set[str], places: EntryPlaces | None = None
) -> list[Entry]:
    """The visible entries: all entries outside folds, or with a filter the matches and their context.

    places  the positions of these entries, if known; they make finding the matches faster
    """
    if found is None:
        return [entry for entry in entries if folded.isdisjoint(entry.parents)] if folded else entries
    places = places or EntryPlaces(entries)
    shown = {index for subject in found for index in places.by_subject.get(subject, ())}
    parents = {entry.parents for entry in map(entries.__getitem__, shown)}
    shown |= {places.by_key[key] for keys in parents for key in keys}
    return [entries[index] for index in sorted(shown)]
