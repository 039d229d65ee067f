"""Add a paper to papers.yaml by inserting lines, so that every existing byte is preserved.

YAML writers would reformat the reader's file. So the parser only locates the ends of the list's parts, and
the new lines are inserted there, in the file's own indentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any

from readtrack.errors import ReadtrackError
from readtrack.reading_list.catalog import Paper
from readtrack.text import nearest, one_line, quoted

ADDED = "Added"
_UNSAFE = re.compile(r"[^\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class NewPaper:
    """A paper for the list, and its row.

    kind, value          its only source
    authors, year, kind  empty (0) if unknown
    missing              "title" if the title is a placeholder
    is_known             its facts ship with readtrack, so the list needs only the row
    """

    id: str
    title: str
    authors: tuple[str, ...]
    year: int
    kind: str
    value: str
    missing: tuple[str, ...] = ()
    is_known: bool = False

    def row(self) -> list[str]:
        dated = f"{self.title} ({self.year})" if self.year else self.title
        return [f"- text: {quote(dated)}", f"  papers: [{self.id}]"]

    def block(self) -> list[str]:
        return [
            f"{self.id}:",
            f"  title: {quote(self.title)}",
            *([f"  authors: {_names(self.authors)}"] if self.authors else []),
            *([f"  year: {self.year}"] if self.year else []),
            *(["  sources:", f"    - {self.kind}: {quote(self.value)}"] if self.kind else []),
            *([f"  missing: [{', '.join(self.missing)}]"] if self.missing else []),
        ]


class CannotInsertError(ReadtrackError):
    """The file is valid, but written in a form into which lines cannot be inserted."""


@dataclass(slots=True, eq=False)
class Part:
    """A piece of the file: its first and last significant character, and its content.

    `column` is its start within the line; `flow`: whether it is in brackets. A mapping has `keys`, a sequence
    `items`, anything else a `text`; a missing value has none of these.
    """

    start: int
    end: int
    column: int
    flow: bool = False
    text: str | None = None
    keys: dict[str, Part] | None = None
    items: list[Part] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return self.text is None and self.keys is None and not self.items and not self.flow


def insert(text: str, entry: NewPaper, section: str | None = None) -> str:
    """`text`, a list that `catalog.load` accepts, with the paper at its end and the paper's row in `section`.

    `section` defaults to "Added", which is created at the end if needed. Raises ReadtrackError if
    there is no such section, CannotInsertError if the lines cannot be inserted.
    """
    if text.startswith("\ufeff"):
        return "\ufeff" + insert(text[1:], entry, section)
    text = opened(text)
    root = parsed(text)
    if root.keys is None or root.flow:
        raise _by_hand(entry)
    edits = [_row_edit(text, root.keys["checklist"], entry, section)]
    if not entry.is_known:
        edits.append(_paper_edit(text, root, entry))
    end_of_line = "\r\n" if "\r\n" in text else "\n"
    pieces, done = [], 0
    for at, lines in sorted(edits, key=itemgetter(0)):  # at the same position, the row comes first
        piece = text[done:at]
        if piece and not piece.endswith("\n"):
            piece += end_of_line
        pieces += [piece, *(line + end_of_line for line in lines)]
        done = at
    return "".join([*pieces, text[done:]])


def opened(text: str) -> str:
    """`text` without the brackets of an empty checklist or empty papers, so that lines can be inserted."""
    text = re.sub(r"(?m)^checklist:[ \t]*\[[ \t]*\]", "checklist:", text)
    return re.sub(r"(?m)^papers:[ \t]*\{[ \t]*\}[ \t]*\r?(\n|\Z)", "", text)


def _row_edit(text: str, checklist: Part, entry: NewPaper, section: str | None) -> tuple[int, list[str]]:
    """Position and lines of the new row."""
    if checklist.is_empty:
        find_section([], section)
        lines = [
            f"  - section: {quote(ADDED)}",
            "    rows:",
            *(f"      {one}" for one in entry.row()),
        ]
        return next_line(text, checklist.end), lines
    if checklist.flow or not checklist.items:
        raise _by_hand(entry)
    titles = [one_line(part.keys["section"].text or "") for part in checklist.items if part.keys]
    index = find_section(titles, section)
    if index is None:
        dash = " " * checklist.column
        inner = [f"{dash}    {line}" for line in entry.row()]
        lines = [f"{dash}- section: {quote(section or ADDED)}", f"{dash}  rows:", *inner]
        return next_line(text, checklist.end), [*blank_between(text, checklist.items), *lines]
    part = checklist.items[index]
    keys = part.keys
    if keys is None or part.flow:
        raise _by_hand(entry)
    rows = keys.get("rows")
    if rows is None:
        pad = " " * part.column
        return next_line(text, part.end), [f"{pad}rows:", *(f"{pad}  {line}" for line in entry.row())]
    if rows.flow or not (rows.items or rows.is_empty):
        raise _by_hand(entry)
    pad = " " * (part.column + 2 if rows.is_empty else rows.column)
    return next_line(text, rows.end), [pad + line for line in entry.row()]


def find_section(titles: list[str], section: str | None) -> int | None:
    """The index of a section by its title, or by a part of it; None if "Added" must be created.

    Raises ReadtrackError if there is no such section, or several.
    """
    wanted = one_line(section or ADDED).casefold()
    folded = [title.casefold() for title in titles]
    found = [index for index, title in enumerate(folded) if title == wanted]
    if section is not None and not found:
        found = [index for index, title in enumerate(folded) if wanted in title]
        if len(found) != 1:
            hint = nearest(section, titles, f"there are: {', '.join(titles)}")
            many = f"{len(found)} sections are" if found else "no section is"
            raise ReadtrackError(f"{many} named like {quoted(section)}; {hint}")
    return found[0] if found else None


def _paper_edit(text: str, root: Part, entry: NewPaper) -> tuple[int, list[str]]:
    assert root.keys is not None
    papers = root.keys.get("papers")
    if papers is None:
        return next_line(text, root.end), ["", "papers:", *(f"  {line}" for line in entry.block())]
    if papers.flow or papers.keys is None:
        raise _by_hand(entry)
    pad = " " * papers.column
    gap = blank_between(text, list(papers.keys.values()))
    return next_line(text, papers.end), [*gap, *(pad + line for line in entry.block())]


def blank_between(text: str, parts: list[Part]) -> list[str]:
    """A blank line if the file separates these parts by blank lines, else nothing."""
    last = parts[-1]
    before = parts[-2].end if len(parts) > 1 else last.start
    return [""] if re.search(r"\n[ \t]*\r?\n", text[before : last.start]) or len(parts) == 1 else []


def next_line(text: str, end: int) -> int:
    """The start of the line that follows the position `end`."""
    found = text.find("\n", end)
    return len(text) if found < 0 else found + 1


def filled(text: str, paper: Paper, facts: Mapping[str, Any]) -> str:
    """`text` with the facts (title, authors, year) that the paper lacks.

    Rows whose text is the paper's title are updated as well.
    """
    if text.startswith("\ufeff"):
        return "\ufeff" + filled(text[1:], paper, facts)
    root = parsed(text)
    block = ((root.keys or {})["papers"].keys or {})[paper.id]
    keys = block.keys or {}
    written: dict[str, Callable[[Any], str]] = {"title": quote, "authors": _names, "year": str}
    found = {name: written[name](facts[name]) for name in paper.missing if name in facts}
    edits = [(keys[name].start, keys[name].end + 1, value) for name, value in found.items() if name in keys]
    after = paper._replace(**{name: facts[name] for name in ("title", "year") if name in found})
    edits += [
        (part.start, part.end + 1, quote(after.dated))
        for part in _in_rows(root, "text")
        if part.text == paper.dated
    ]
    if "missing" in keys:
        left = "" if "title" in found or "title" not in paper.missing else "title"
        edits.append((keys["missing"].start, keys["missing"].end + 1, f"[{left}]"))
    more = [f"{name}: {value}" for name, value in found.items() if name not in keys]
    if more and block.flow:
        edits.append((block.end, block.end, f", {', '.join(more)}"))
    elif more:
        at, ending = next_line(text, keys["title"].end), "\r\n" if "\r\n" in text else "\n"
        before = "" if text[:at].endswith("\n") else ending
        edits.append((at, at, before + "".join(f"{' ' * block.column}{line}{ending}" for line in more)))
    for start, end, value in sorted(edits, reverse=True):
        text = text[:start] + value + text[end:]
    return re.sub(r"(?m)^[ \t]*missing: \[\][ \t]*\r?\n?", "", text)


def without_ticks(text: str) -> str:
    """`text` with all ticks removed, since they are its author's and not the reader's."""
    if text.startswith("\ufeff"):
        return "\ufeff" + without_ticks(text[1:])
    ticks = [part for part in _in_rows(parsed(text), "done") if part.text in ("true", "True")]
    for tick in reversed(ticks):
        begin, after = text.rfind("\n", 0, tick.start) + 1, next_line(text, tick.end)
        if text[begin:after].split() == ["done:", text[tick.start : tick.end + 1]]:
            text = text[:begin] + text[after:]
        else:
            text = f"{text[: tick.start]}false{text[tick.end + 1 :]}"
    return text


def insert_source(text: str, paper_id: str, kind: str, value: str) -> str:
    """`text` with one more source for a paper that has a block. Raises CannotInsertError."""
    if text.startswith("\ufeff"):
        return "\ufeff" + insert_source(text[1:], paper_id, kind, value)
    block = ((parsed(text).keys or {})["papers"].keys or {})[paper_id]
    keys = block.keys or {}
    there, item = keys.get("sources"), f"- {kind}: {quote(value)}"
    pad = " " * block.column
    if block.flow or (there is not None and (there.flow or not there.items)):
        raise CannotInsertError(
            f"the block of {paper_id} is in brackets; add this to its sources: {item.removeprefix('- ')}"
        )
    if there is not None:
        at, lines = next_line(text, there.end), [" " * there.column + item]
    else:
        at, lines = next_line(text, keys["title"].end), [f"{pad}sources:", f"{pad}  {item}"]
    ending = "\r\n" if "\r\n" in text else "\n"
    before = text[:at] if text[:at].endswith("\n") else text[:at] + ending
    return before + "".join(line + ending for line in lines) + text[at:]


def _names(authors: Sequence[str]) -> str:
    return f"[{', '.join(map(quote, authors))}]"


def _in_rows(part: Part, wanted: str) -> Iterator[Part]:
    """The values of one key in all rows."""
    for key, inside in (part.keys or {}).items():
        if key == wanted:
            yield inside
        elif key in ("checklist", "rows"):
            for item in inside.items:
                yield from _in_rows(item, wanted)


def _by_hand(entry: NewPaper) -> CannotInsertError:
    what = "rows" if entry.is_known else "papers"
    lines = "\n".join(f"  {line}" for line in (entry.row() if entry.is_known else entry.block()))
    return CannotInsertError(
        f"readtrack cannot insert lines into a list in this form; add this to its {what}:\n{lines}"
    )


def quote(text: str) -> str:
    """`text` as a YAML scalar in double quotes."""
    text = one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _UNSAFE.sub(lambda found: f"\\U{ord(found[0]):08x}", text) + '"'


def parsed(text: str) -> Part:
    """Parse the text, which must not begin with a byte-order mark, into parts."""
    import yaml

    # The C parser is ten times as fast as the Python parser, and its marks count characters, too (except for
    # a byte-order mark).
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    events: Iterator[Any] = iter(yaml.parse(text, Loader=loader))
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            break
    return _part(text, next(events), events)


def _part(text: str, event: Any, events: Iterator[Any]) -> Part:
    import yaml

    start, column, end_of = event.start_mark.index, event.start_mark.column, attrgetter("end_mark.index")
    if isinstance(event, yaml.ScalarEvent):
        # A block scalar's mark is after the blank lines that follow it.
        written = text[start : end_of(event)].rstrip()
        return Part(start, start + len(written) - 1, column, text=event.value if written else None)
    part = Part(start, start, column, flow=bool(event.flow_style))
    if isinstance(event, yaml.MappingStartEvent):
        part.keys = {}
    while not isinstance(event := next(events), yaml.SequenceEndEvent | yaml.MappingEndEvent):
        item = _part(text, event, events)
        if part.keys is not None:
            key, item = item, _part(text, next(events), events)
            if item.is_empty:  # its mark may be anywhere after the key
                item.end = key.end
            part.keys[key.text or ""] = item
        else:
            part.items.append(item)
        part.end = max(part.end, item.end)
    if part.flow:
        part.end = end_of(event) - 1
    return part
