"""Writes papers.yaml: creates the reader's own list from the shipped one, and adds rows and papers.

All other content of the file is kept: lines are inserted, as in `readtrack.reading_list.insert`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing
from readtrack.reading_list import insert, load
from readtrack.reading_list.catalog import Catalog, CatalogError, Note, Paper, Row, Section
from readtrack.text import one_line, plain

_UNSAFE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(slots=True)
class NewRow:
    """A row for the list with its nested rows. Without `papers` and `rows` it may be a line of prose."""

    text: str
    done: bool = False
    papers: tuple[str, ...] = ()
    rows: list[NewRow] = field(default_factory=list)
    prose: bool = False

    def lines(self) -> Iterator[str]:
        if self.prose:
            yield f"- note: {scalar(self.text)}"
            return
        yield f"- text: {scalar(self.text)}"
        if self.done:
            yield "  done: true"
        if self.papers:
            yield f"  papers: [{', '.join(self.papers)}]"
        if self.rows:
            yield "  rows:"
            yield from (f"    {line}" for row in self.rows for line in row.lines())


@dataclass(slots=True)
class NewSection:
    title: str
    rows: list[NewRow] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield f"- section: {scalar(self.title)}"
        if self.rows:
            yield "  rows:"
            yield from (f"    {line}" for row in self.rows for line in row.lines())


@dataclass(slots=True)
class Additions:
    """Additions to a list. `rows` maps a place to the rows to add below it; a place is the section's
    index, followed by the indices of nested rows. `links` maps the places of existing rows to their
    papers.
    """

    rows: dict[tuple[int, ...], list[NewRow]] = field(default_factory=dict)
    sections: list[NewSection] = field(default_factory=list)
    papers: list[Paper] = field(default_factory=list)
    links: dict[tuple[int, ...], tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rows or self.sections or self.papers or self.links)


def places(listed: Catalog) -> Iterator[tuple[tuple[int, ...], Section, Row | Note]]:
    """Every row and line of prose with its place and its section."""

    def inside(
        section: Section, items: Sequence[Row | Note], place: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], Section, Row | Note]]:
        for index, item in enumerate(items):
            yield (*place, index), section, item
            if isinstance(item, Row):
                yield from inside(section, item.rows, (*place, index))

    for number, section in enumerate(listed.sections):
        yield from inside(section, section.rows, (number,))


def scalar(text: str) -> str:
    """`text` as a YAML scalar in double quotes; line feeds and repeated spaces are kept."""
    quoted = json.dumps(plain(text), ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def paper_lines(paper: Paper) -> list[str]:
    """The block of one paper, for the end of `papers:`."""
    lines = [
        f"{paper.id}:",
        f"  title: {scalar(paper.title)}",
        *([f"  authors: [{', '.join(map(scalar, paper.authors))}]"] if paper.authors else []),
        *([f"  year: {paper.year}"] if paper.year else []),
        *(["  sources:"] if paper.sources else []),
    ]
    for source in paper.sources:
        lines.append(f"    - {source.kind}: {scalar(source.value)}")
        if source.note:
            lines.append(f"      note: {scalar(source.note)}")
    if paper.aliases:
        lines.append(f"  aliases: [{', '.join(map(scalar, paper.aliases))}]")
    if paper.builds_on:
        lines.append(f"  builds_on: [{', '.join(paper.builds_on)}]")
    prose = {"problem": paper.problem, "idea": paper.idea, "result": paper.result}
    lines += [f"  {name}: {scalar(text)}" for name, text in prose.items() if text]
    return lines + (["  missing: [title]"] if "title" in paper.missing else [])


def fresh(text: str, title: str, note: str, additions: Additions) -> str:
    """A new list with the comment at the head of `text`, the shipped list. Shipped papers need no block."""
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if re.match(r"[a-z]+:", line)), 0)
    head = [*lines[:first], f"title: {scalar(title)}"]
    if note:
        head.append(f"note: {scalar(note)}")
    checklist = [f"  {line}" for section in additions.sections for line in ("", *section.lines())]
    new = [line for paper in additions.papers for line in ("", *(f"  {one}" for one in paper_lines(paper)))]
    papers = ["", "papers:", *new[1:]] if new else []
    return "\n".join([*head, "", "checklist:", *(line.rstrip() for line in checklist), *papers]) + "\n"


def extended(text: str, additions: Additions) -> str:
    """`text` with the additions. Raises CannotInsertError if there are no lines to insert at."""
    bom = text[: text.startswith("\ufeff")]
    text = _linked(insert.opened(text[len(bom) :]), additions.links)
    root = insert.parsed(text)
    checklist = _checklist(root)
    edits: list[tuple[int, list[str]]] = []
    for place, rows in sorted(additions.rows.items(), key=lambda one: -len(one[0])):
        edits.append(_rows_edit(text, _part_at(checklist, place), rows))
    if additions.sections:
        pad = " " * (2 if checklist.is_empty else checklist.column)
        lines = [f"{pad}{line}" for section in additions.sections for line in ("", *section.lines())]
        edits.append((insert.next_line(text, checklist.end), [line.rstrip() for line in lines]))
    if additions.papers:
        edits.append(_papers_edit(text, root, additions.papers))
    return bom + _spliced(text, edits)


def without(text: str, place: tuple[int, ...]) -> str:
    """`text` without the row at `place` and its nested rows. Raises CannotInsertError if the row does not
    have separate lines.
    """
    bom = text[: text.startswith("\ufeff")]
    text = text[len(bom) :]
    row = _part_at(_checklist(insert.parsed(text)), place)
    start = text.rfind("\n", 0, row.start) + 1
    if row.flow or text[start : row.start].strip() != "-":
        raise _unusual()
    return bom + text[:start] + text[insert.next_line(text, row.end) :]


def _checklist(root: insert.Part) -> insert.Part:
    checklist = (root.keys or {}).get("checklist")
    if checklist is None or root.flow or not (checklist.items or checklist.is_empty) or checklist.flow:
        raise _unusual()
    return checklist


def _part_at(checklist: insert.Part, place: tuple[int, ...]) -> insert.Part:
    part = checklist.items[place[0]]
    for index in place[1:]:
        part = (part.keys or {})["rows"].items[index]
    return part


def _linked(text: str, links: Mapping[tuple[int, ...], Sequence[str]]) -> str:
    """`text` with new papers for the rows at the places in `links`."""
    if not links:
        return text
    checklist = _checklist(insert.parsed(text))
    ending = "\r\n" if "\r\n" in text else "\n"
    edits = []
    for place, papers in links.items():
        row = _part_at(checklist, place)
        keys, names = row.keys or {}, f"[{', '.join(papers)}]"
        there = keys.get("papers")
        if there is None:
            if row.flow:
                raise _unusual()
            at = insert.next_line(text, keys["text"].end)
            before = "" if text[:at].endswith("\n") else ending
            edits.append((at, at, f"{before}{' ' * row.column}papers: {names}{ending}"))
        elif there.is_empty:
            at = text.index(":", there.end) + 1
            edits.append((at, at, f" {names}"))
        else:
            start = len(text[: there.start].rstrip())
            start, space = (start, " ") if text[start - 1] == ":" else (there.start, "")
            edits.append((start, there.end + 1, space + names))
    for start, end, names in sorted(edits, reverse=True):
        text = text[:start] + names + text[end:]
    return text


def _rows_edit(text: str, part: insert.Part, rows: Sequence[NewRow]) -> tuple[int, list[str]]:
    lines = [line for row in rows for line in row.lines()]
    keys = part.keys
    if keys is None or part.flow:
        raise _unusual()
    inside = keys.get("rows")
    if inside is None:
        pad = " " * part.column
        return insert.next_line(text, part.end), [f"{pad}rows:", *(f"{pad}  {line}" for line in lines)]
    if inside.flow or not (inside.items or inside.is_empty):
        raise _unusual()
    pad = " " * (part.column + 2 if inside.is_empty else inside.column)
    return insert.next_line(text, inside.end), [pad + line for line in lines]


def _papers_edit(text: str, root: insert.Part, papers: Iterable[Paper]) -> tuple[int, list[str]]:
    assert root.keys is not None
    known = root.keys.get("papers")
    if known is None:
        lines = [f"  {line}" for paper in papers for line in paper_lines(paper)]
        return insert.next_line(text, root.end), ["", "papers:", *lines]
    if known.flow or not known.keys:
        raise _unusual()
    pad = " " * known.column
    gap = insert.blank_between(text, list(known.keys.values()))
    lines = [line for paper in papers for line in (*gap, *(pad + one for one in paper_lines(paper)))]
    return insert.next_line(text, known.end), lines


def _spliced(text: str, edits: list[tuple[int, list[str]]]) -> str:
    ending = "\r\n" if "\r\n" in text else "\n"
    pieces, done = [], 0
    # Add to nested rows before adding to the enclosing rows.
    for at, lines in sorted(edits, key=itemgetter(0)):
        piece = text[done:at]
        if piece and not piece.endswith("\n"):
            piece += ending
        pieces += [piece, *(line + ending for line in lines)]
        done = at
    return "".join([*pieces, text[done:]])


def _unusual() -> ReadtrackError:
    return insert.CannotInsertError(
        "nothing can be inserted into a list in brackets. Write its sections and rows on separate lines"
    )


def write(home: Home, path: Path, before: bytes | None, text: str) -> None:
    """Replace the list with `text` after checking that it is a valid list. Raises ReadtrackError, without
    any change, if it is not, or if the file no longer equals `before` (None if there was none).
    """
    home.ensure()
    target = path.resolve()
    try:
        with home.lock("papers"):
            now = target.read_bytes() if target.exists() else None
            if now != before:
                raise ReadtrackError(f"{path} was changed by another program. Try again.")
            with replacing(target) as part:
                part.write_bytes(text.encode("utf-8"))
                load.load(part)
    except CatalogError as error:
        raise ReadtrackError(f"the change would make the list invalid: {one_line(str(error))}") from error
    except OSError as error:
        raise ReadtrackError(f"could not write {target}: {error.strerror}.") from error
