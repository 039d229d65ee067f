"""Formats rows of a list: links appear by name, strikethrough is left out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readtrack.reading_list.catalog import Paper

_LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\(((?:[^()\s]|\([^()\s]*\))+)\)")
_STRUCK = re.compile(r"~~(?=\S)((?:[^~]|~(?!~))+)(?<=\S)~~")  # linear time: the struck text contains no ~~


def pieces(text: str) -> list[tuple[str, str]]:
    """A row's Markdown as (text, link) pieces: `[see blog](https://...)` becomes ("see blog", "https://...").
    Strikethrough is left out, because the row's state shows it.
    """
    text = _STRUCK.sub(r"\1", text)
    found: list[tuple[str, str]] = []
    end = 0
    for match in _LINK.finditer(text):
        if match.start() > end:
            found.append((text[end : match.start()], ""))
        found.append((match[1] or match[2], match[2]))
        end = match.end()
    if end < len(text) or not found:
        found.append((text[end:], ""))
    return found


def shown(text: str, paper: Paper | None = None) -> list[tuple[str, str]]:
    """A row's pieces, or the title of its paper if the row is only a link and the title is known."""
    if paper is not None and "title" not in paper.missing and re.fullmatch(r"\s*https?://\S+\s*", text):
        return [(paper.dated, text)]
    return pieces(text)


def words(text: str, paper: Paper | None = None) -> str:
    return "".join(piece for piece, _ in shown(text, paper))


def links(text: str) -> list[str]:
    """The web addresses in a row's text, from Markdown links and bare addresses."""
    named = [link for _, link in pieces(text) if link.startswith(("http://", "https://"))]
    bare = re.findall(r"https?://[^\s<>()\[\]]+", _LINK.sub(" ", text))
    return list(dict.fromkeys([*named, *(address.rstrip(".,;") for address in bare)]))
