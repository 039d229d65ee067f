"""A Markdown checklist taken apart into items, such that its items put together are the file again.

A checklist is headings, bullets with or without a box, nested by their indentation, and stray lines. An item
keeps the lines as they were written, so that an export can give them back with other ticks alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from readtrack.reading_list.catalog import Catalog, Note, Row
from readtrack.text import one_line

Kind = Literal["title", "section", "prose", "row"]

UNNAMED = "List"  # the section of rows that stand under no heading
_DEEPEST = 14  # levels of rows; YAML's own limit is 40 levels of nodes, two for each row

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#*)?[ \t]*")
_RULE = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*")
_BULLET = re.compile(r"([ \t]*)(?:[-*+]|\d{1,9}[.)])[ \t]+(?:\[([ xX])\](?:[ \t]+|$))?(.*)")
_FENCE = re.compile(r"[ \t]*(```+|~~~+)")


@dataclass(frozen=True, slots=True)
class Item:
    """One heading, row or stray line.

    text    as the list has it, on one line
    depth   of a row: how many rows it stands in
    box     where in `raw` the character of the tick box is; -1 for none
    raw     its lines as they were written; "" for a heading that the file does not have
    before  what stands between it and the item above: blank lines
    line    in the file, from 1
    """

    kind: Kind
    text: str
    depth: int = 0
    box: int = -1
    raw: str = ""
    before: str = ""
    line: int = 0

    @property
    def ticked(self) -> bool:
        return self.box >= 0 and self.raw[self.box] in "xX"

    @property
    def key(self) -> tuple[str, str]:
        """The same for this item and for what the list made of it."""
        return ("prose" if self.kind == "prose" else self.kind, one_line(self.text))

    def with_tick(self, ticked: bool) -> Item:
        """The row with its box as wanted; a row without a box gets one when it is ticked."""
        if ticked == self.ticked:
            return self
        if self.box < 0:
            head = re.match(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+", self.raw)
            assert head
            raw = f"{self.raw[: head.end()]}[x] {self.raw[head.end() :]}"
            return replace(self, raw=raw, box=head.end() + 1)
        return replace(self, raw=self.raw[: self.box] + ("x" if ticked else " ") + self.raw[self.box + 1 :])


@dataclass(frozen=True, slots=True)
class Document:
    """`after` is what follows the last item: blank lines."""

    items: tuple[Item, ...]
    after: str = ""

    @property
    def source(self) -> str:
        return "".join(item.before + item.raw for item in self.items) + self.after


def parse(text: str) -> Document:
    """Any text is a checklist, if need be one of stray lines."""
    items: list[Item] = []
    blank, fence = "", ""
    nesting: list[int] = []  # indentations of the rows around the next one
    headings = 0
    for number, line in enumerate(_lines(text), start=1):
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
    return Document(tuple(_placed(items, headings)), blank)


def _lines(text: str) -> Iterator[str]:
    """With their ends. Only a line feed ends a line: other separators may stand in a title."""
    return (line for line in re.split(r"(?<=\n)", text) if line)


def _heading(bare: str) -> tuple[int, str] | None:
    found = _HEADING.fullmatch(bare)
    title = one_line(found[2]) if found else ""
    return (len(found[1]), title) if found and title else None


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


def _placed(items: list[Item], headings: int) -> Iterator[Item]:
    """The first heading of the first level is the title if it is the only one; rows stand in a section."""
    in_section = False
    for item in items:
        if item.kind == "title" and (headings > 1 or in_section):
            item = replace(item, kind="section")
        if item.kind == "row" and not in_section:
            yield Item("section", UNNAMED, line=item.line)
        in_section = in_section or item.kind in ("section", "row")
        yield item


def _unescaped(bare: str) -> str:
    words = one_line(bare)
    return words[1:] if words.startswith("\\") and _means_something(words[1:]) else words


def _means_something(words: str) -> bool:
    """Whether a line of prose would be read as something else, or is written to prevent that."""
    return bool(
        words.startswith("\\")
        or _HEADING.fullmatch(words)
        or _FENCE.match(words)
        or (_BULLET.fullmatch(words) and not _RULE.fullmatch(words))
    )


# The list as items


def outline(catalog: Catalog, ticked: set[str]) -> list[Item]:
    """The list as a Markdown file would have it; `ticked` holds the keys of the rows that get a tick."""
    items = [_written("title", catalog.title)]
    items += [_written("prose", line) for line in _prose(catalog.note)]
    for section in catalog.sections:
        items.append(_written("section", section.title))
        items += [_written("prose", line) for line in _prose(section.note)]
        items += _rows(section.rows, 0, ticked)
    return items


def _rows(rows: Iterable[Row | Note], depth: int, ticked: set[str]) -> Iterator[Item]:
    for row in rows:
        if isinstance(row, Note):
            yield from (_written("prose", line) for line in _prose(row.text))
        else:
            yield _written("row", row.text, depth, row.key in ticked)
            yield from _rows(row.rows, depth + 1, ticked)


def _prose(text: str) -> list[str]:
    return [line for line in text.splitlines() if one_line(line)]


def _written(kind: Kind, text: str, depth: int = 0, ticked: bool = False) -> Item:
    words = one_line(text)
    if kind == "title":
        return Item(kind, words, raw=f"# {words}\n")
    if kind == "section":
        return Item(kind, words, raw=f"## {words}\n", before="\n")
    if kind == "prose":
        escape = "\\" if _means_something(words) else ""
        return Item(kind, words, raw=f"{escape}{words}\n")
    pad = "  " * depth
    return Item(kind, words, depth, len(pad) + 3, f"{pad}- [{'x' if ticked else ' '}] {words}\n")


def merged(items: list[Item], originals: Iterable[Document]) -> str:
    """`items` as Markdown, in the words and lines of `originals` wherever these have them."""
    from difflib import SequenceMatcher

    documents = list(originals)
    written = [item for document in documents for item in document.items]
    pairs = SequenceMatcher(None, [one.key for one in written], [one.key for one in items], autojunk=False)
    text = ""
    for what, low, high, start, end in pairs.get_opcodes():
        kept = items[start:end]
        if what == "equal":
            both = zip(written[low:high], kept, strict=True)
            kept = [old.with_tick(new.ticked) if old.kind == "row" else old for old, new in both]
        for item in kept:
            if item.raw and text and not text.endswith("\n"):
                text += "\n"
            text += item.before + item.raw
    return text + documents[-1].after if documents else text.lstrip("\n")
