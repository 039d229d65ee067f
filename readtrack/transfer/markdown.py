"""Parses a Markdown checklist into items, whose concatenation is exactly the file again.

A checklist consists of headings, bullets with or without a box, nested by indentation, and other lines. An
item keeps its original lines, so that an export can return them with only the ticks changed. Front matter is
not part of the items.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from readtrack.reading_list.catalog import Catalog, Note, Row
from readtrack.reading_list.journal import State
from readtrack.text import one_line

Kind = Literal["title", "section", "prose", "row"]

UNNAMED = "List"
_DEEPEST = 14  # levels of rows; YAML's limit is 40 levels of nodes, two for each row

# The characters in a box and their states. GitHub supports the first three, Obsidian and Logseq all of them.
BOXES: dict[str, State] = {" ": "todo", "x": "read", "X": "read", "/": "reading", "-": "skipped"}
_SIGNS = {"todo": " ", "read": "x", "implemented": "x", "reading": "/", "skipped": "-"}

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_RULE = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*")
_BULLET = re.compile(r"([ \t]*)(?:[-*+]|\d{1,9}[.)])[ \t]+(?:\[([ xX/-])\](?:[ \t]+|$))?(.*)")
_STRUCK = re.compile(r"~~[^~]+~~")
_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(?:[ \t]*\r?\n)*[\w\"'][^\n:]*:[ \t\r\n]")
_FRONT_END = re.compile(r"^(?:---|\.\.\.)[ \t]*\r?(?:\n|\Z)", re.MULTILINE)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)
_FENCE = re.compile(r"[ \t]*(```+|~~~+)")


@dataclass(frozen=True, slots=True)
class Item:
    """One heading, row or other line.

    text    as in the list, on one line
    depth   number of rows around a row
    box     position of the tick box's character in `raw`; -1 without a box
    raw     the original lines; "" for a heading that the file does not have
    before  blank lines between this item and the previous one
    line    line in the file, from 1
    """

    kind: Kind
    text: str
    depth: int = 0
    box: int = -1
    raw: str = ""
    before: str = ""
    line: int = 0

    @property
    def state(self) -> State:
        """The state of the box. A struck-through row is skipped, unless it is ticked."""
        said = BOXES[self.raw[self.box]] if self.box >= 0 else "todo"
        return "skipped" if said == "todo" and _STRUCK.fullmatch(self.text) else said

    @property
    def key(self) -> tuple[str, str]:
        """A key that is equal for this item and the row that was imported from it."""
        return self.kind, one_line(self.text)

    def with_state(self, state: State) -> Item:
        """The row with its box in this state. A row without a box gets one if the state is not "todo"."""
        sign = _SIGNS[state]
        if state == self.state or (self.box < 0 and sign == " "):
            return self
        if self.box < 0:
            head = re.match(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+", self.raw)
            assert head
            raw = f"{self.raw[: head.end()]}[{sign}] {self.raw[head.end() :]}"
            return replace(self, raw=raw, box=head.end() + 1)
        return replace(self, raw=self.raw[: self.box] + sign + self.raw[self.box + 1 :])


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file. `front` is the text before the first item (byte-order mark, front matter); `after` is
    the blank lines after the last.
    """

    items: tuple[Item, ...]
    after: str = ""
    front: str = ""

    @property
    def source(self) -> str:
        return self.front + "".join(item.before + item.raw for item in self.items) + self.after

    @property
    def title(self) -> str:
        """The title from the heading or the front matter."""
        of_heading = next((item.text for item in self.items if item.kind == "title"), "")
        in_front = _FRONT_TITLE.search(self.front)
        return of_heading or (one_line(in_front[1]).strip("\"'") if in_front else "")


def parse(text: str, unnamed: str = UNNAMED) -> Document:
    """Parse a text. Any text is valid, and unrecognised lines become items, too.

    unnamed  the section for rows without a heading
    """
    front, text = _without_front(text)
    items: list[Item] = []
    blank, fence = "", ""
    nesting: list[int] = []  # indentations of the enclosing rows
    headings = 0
    for number, line in enumerate(_lines(text), start=1 + front.count("\n")):
        bare = line.rstrip("\r\n")
        if not one_line(bare):
            blank += line
            continue
        last = items[-1] if items else None
        opening = _FENCE.match(bare)
        item = None
        if fence:
            fence = "" if opening and bare.strip().startswith(fence) else fence
        elif opening:
            fence = opening[1]
        elif heading := _heading(bare):
            level, title = heading
            headings += level == 1
            item = Item("title" if level == 1 else "section", title)
        elif not _RULE.fullmatch(bare) and (row := _row(bare, nesting)):
            item = row
        elif last and last.kind == "row" and not blank and nesting and _indent(bare) > nesting[-1]:
            items[-1] = replace(last, text=f"{last.text} {_unescaped(bare)}", raw=last.raw + line)
            continue
        if item is None:
            item = Item("prose", one_line(bare) if fence or opening else _unescaped(bare))
        if item.kind != "row":
            nesting.clear()
        items.append(replace(item, raw=line, before=blank, line=number))
        blank = ""
    return Document(tuple(_placed(items, headings, unnamed)), blank, front)


def _without_front(text: str) -> tuple[str, str]:
    """Split off the byte-order mark and front matter."""
    opening = _FRONT.match(text)
    end = _FRONT_END.search(text, opening.end()) if opening else None
    at = end.end() if end else int(text.startswith("\ufeff"))
    return text[:at], text[at:]


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends. Only a line feed ends a line, because titles may contain other separators."""
    return (line for line in re.split(r"(?<=\n)", text) if line)


def _heading(bare: str) -> tuple[int, str] | None:
    found = _HEADING.fullmatch(bare)
    if not found:
        return None
    title = found[2].rstrip(" \t")
    without = title.rstrip("#")
    if without != title and (not without or without[-1] in " \t"):  # closing marks of "## T ##"
        title = without
    title = one_line(title)
    return (len(found[1]), title) if title else None


def _row(bare: str, nesting: list[int]) -> Item | None:
    found = _BULLET.fullmatch(bare)
    if not found or not one_line(found[3]):
        return None
    indent = _indent(bare)
    while nesting and nesting[-1] >= indent:
        nesting.pop()
    depth = min(len(nesting), _DEEPEST)
    nesting.append(indent)
    box = found.start(2) if found[2] is not None else -1
    return Item("row", found[3].strip(), depth, box)


def _indent(bare: str) -> int:
    wide = bare.expandtabs(4)
    return len(wide) - len(wide.lstrip(" "))


def _placed(items: list[Item], headings: int, unnamed: str) -> Iterator[Item]:
    """Assign titles and sections: a single first-level heading is the title, and every row belongs to a
    section.
    """
    in_section = False
    for item in items:
        if item.kind == "title" and (headings > 1 or in_section):
            item = replace(item, kind="section")
        if item.kind == "row" and not in_section:
            yield Item("section", unnamed, line=item.line)
        in_section = in_section or item.kind in ("section", "row")
        yield item


def _unescaped(bare: str) -> str:
    words = one_line(bare)
    return words[1:] if words.startswith("\\") and _means_something(words[1:]) else words


def _means_something(words: str) -> bool:
    """Whether a line of prose would be parsed as something else, or is escaped to prevent this."""
    return bool(
        words.startswith("\\")
        or _heading(words)
        or _FENCE.match(words)
        or (_BULLET.fullmatch(words) and not _RULE.fullmatch(words))
    )


# Conversion of the list to items


def outline(
    catalog: Catalog, states: Mapping[str, State], links: Mapping[str, str] = MappingProxyType({})
) -> list[Item]:
    """The list as items of a Markdown file. `states` are the states of rows by key ("todo" if absent);
    `links` are appended to their texts.
    """
    items = [_written("title", catalog.title)]
    items += [_written("prose", line) for line in _prose(catalog.note)]
    for section in catalog.sections:
        items.append(_written("section", section.title))
        items += [_written("prose", line) for line in _prose(section.note)]
        items += _rows(section.rows, 0, states, links)
    return items


def _rows(
    rows: Iterable[Row | Note], depth: int, states: Mapping[str, State], links: Mapping[str, str]
) -> Iterator[Item]:
    for row in rows:
        if isinstance(row, Note):
            yield from (_written("prose", line) for line in _prose(row.text))
        else:
            item = _written("row", row.text, depth, states.get(row.key, "todo"))
            more = links.get(row.key)
            yield replace(item, raw=f"{item.raw[:-1]} {more}\n") if more else item
            yield from _rows(row.rows, depth + 1, states, links)


def _prose(text: str) -> list[str]:
    return [line for line in text.splitlines() if one_line(line)]


def _written(kind: Kind, text: str, depth: int = 0, state: State = "todo") -> Item:
    words = one_line(text)
    if kind == "title":
        return Item(kind, words, raw=f"# {words}\n")
    if kind == "section":
        return Item(kind, words, raw=f"## {words}\n", before="\n")
    if kind == "prose":
        escape = "\\" if _means_something(words) else ""
        return Item(kind, words, raw=f"{escape}{words}\n")
    pad = "  " * depth
    return Item(kind, words, depth, len(pad) + 3, f"{pad}- [{_SIGNS[state]}] {words}\n")


def merged(items: list[Item], originals: Iterable[Document]) -> str:
    """`items` as Markdown, with the wording, lines and line endings of `originals` where they contain the
    item.
    """
    from difflib import SequenceMatcher

    documents = list(originals)
    if not documents:
        return "".join(item.before + item.raw for item in items).lstrip("\n")
    items = _headed(items, documents[0])
    written = [item for document in documents for item in document.items]
    opening = next((item for item in written if item.kind == "section"), None)
    crlf = documents[0].source.partition("\n")[0].endswith("\r")
    text = documents[0].front
    pairs = SequenceMatcher(None, _numbered(written), _numbered(items), autojunk=False)
    for what, low, high, start, end in pairs.get_opcodes():
        kept = items[start:end]
        if what == "equal":
            kept = [
                # Rows of a later file without a heading come after the section of another file.
                _ending(new, crlf)
                if old.kind == "section" and not old.raw and old is not opening
                else _marked(old, new)
                for old, new in zip(written[low:high], kept, strict=True)
            ]
        else:
            kept = [_ending(new, crlf) for new in kept]
        for item in kept:
            if item.raw and text and not text.endswith("\n"):
                text += "\r\n" if crlf else "\n"
            text += item.before + item.raw
    return text + documents[-1].after


def _headed(items: list[Item], document: Document) -> list[Item]:
    """The title and prose before the first section, in the document's order if both have the same."""
    of_list, of_document = _head(items), _head(document.items)
    same = Counter(item.key for item in of_list) == Counter(item.key for item in of_document)
    return of_document + items[len(of_list) :] if same else items


def _head(items: Iterable[Item]) -> list[Item]:
    from itertools import takewhile

    return list(takewhile(lambda item: item.kind in ("title", "prose"), items))


def _numbered(items: list[Item]) -> list[tuple[str, str, int]]:
    """Unique keys, because comparing many equal rows would take quadratic time."""
    count: Counter[tuple[str, str]] = Counter()
    keys = []
    for item in items:
        count[item.key] += 1
        keys.append((*item.key, count[item.key]))
    return keys


def _marked(old: Item, new: Item) -> Item:
    """The row `old` with the state of `new`."""
    return old.with_state(new.state) if old.kind == "row" and new.state != old.state else old


def _ending(item: Item, crlf: bool) -> Item:
    if not crlf:
        return item
    return replace(item, raw=item.raw.replace("\n", "\r\n"), before=item.before.replace("\n", "\r\n"))
