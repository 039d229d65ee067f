"""Joins and wraps styled text as Textual does, but faster for the text of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from textual.content import Content, Span

from readtrack.text import plain

_WORD = re.compile(r"\s*\S+\s*")


def joined(parts: Iterable[Content | str]) -> Content:
    """The parts, concatenated. Textual's own function joins them character by character."""
    texts: list[str] = []
    spans: list[Span] = []
    at = 0
    for part in parts:
        words = part if isinstance(part, str) else part.plain
        if isinstance(part, Content):
            spans += [Span(at + start, at + end, style) for start, end, style in part.spans if style]
        texts.append(words)
        at += len(words)
    return Content("".join(texts), spans)


def wrapped(value: Content | str, room: int, style: str, indent: int) -> list[Content]:
    """Lines of at most `room` columns, indented by `indent`. Every line of `value` is a paragraph."""
    if isinstance(value, Content):
        return _wrapped(value, room, indent)
    lines: list[Content] = []
    for paragraph in plain(value).split("\n"):
        lines += wrapped_ascii(paragraph, room, style, indent) or _wrapped(
            Content.styled(paragraph, style), room, indent
        )
    return lines


def _wrapped(paragraph: Content, room: int, indent: int) -> list[Content]:
    return [line.rstrip().pad_left(indent) for line in paragraph.expand_tabs().wrap(room)]


def wrapped_ascii(paragraph: str, room: int, style: str, indent: int) -> list[Content]:
    """The lines as Textual wraps them, but faster.

    Returns [] for text that is not printable ASCII or has a word longer than `room`.
    """
    if not (paragraph.isascii() and paragraph.isprintable()):
        return []
    cuts, taken = [0], 0
    for word in _WORD.finditer(paragraph):
        needed = len(word[0].rstrip())
        if needed > room:
            return []
        if taken + needed > room:
            cuts.append(word.start())
            taken = 0
        taken += len(word[0])
    lines = [paragraph[start:end].rstrip() for start, end in zip(cuts, [*cuts[1:], None], strict=True)]
    return [
        Content(
            " " * indent + line,
            [Span(indent, indent + len(line), style)] if style and line else None,
            indent + len(line),
            strip_control_codes=False,
        )
        for line in lines
    ]


def consecutive(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and the last number of each run of consecutive ascending numbers."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = number
        elif number != last + 1:
            yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last
