"""Converts Markdown to HTML, without embedded HTML, external pictures or links to scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from readtrack.svg import Drawn

Target = Callable[[str], str | None]


def outside(address: str) -> str | None:
    """The address if it is a web link, else None."""
    return address if address.startswith(("https://", "http://")) else None


def html(text: str, *, heading: int = 1, target: Target = outside, pictures: bool = False) -> Drawn:
    """`text` as HTML.

    heading   the level of its first headings
    target    maps a link's address to the address to write; None replaces the link with its text
    pictures  whether to keep pictures; a picture in a note would cause a request to another server
    """
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    if not pictures:
        reader.disable("image")
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + heading - 1)}"
        if "style" in token.attrs:  # column alignment of tables; pages have no inline style
            token.attrs = {"class": "r"} if "right" in str(token.attrs["style"]) else {}
        _links(token.children or [], target)
    return Drawn(_scrolling(reader.renderer.render(tokens, reader.options, {})))


def _links(tokens: list[Any], target: Target) -> None:
    lost: list[bool] = []
    for token in tokens:
        if token.type == "link_open":
            address = target(str(token.attrs.get("href", "")))
            lost.append(address is None)
            token.attrs = {"href": address or "", "rel": "noreferrer"}
        elif token.type == "image":
            token.attrs = {"src": target(str(token.attrs.get("src", ""))) or "", "alt": token.content}
        if (token.type == "link_open" and lost[-1]) or (token.type == "link_close" and lost.pop()):
            token.type, token.tag, token.nesting, token.content = "text", "", 0, ""


def _scrolling(text: str) -> str:
    """Make wide tables and code scroll separately, also with the keyboard."""
    first, *rest = text.split("<table>")
    scroll = '<div class="scroll" tabindex="0" role="region" aria-label="Table {}"><table>'
    pieces = (
        scroll.format(number) + piece.replace("</table>", "</table></div>", 1)
        for number, piece in enumerate(rest, start=1)
    )
    return (first + "".join(pieces)).replace("<pre>", '<pre tabindex="0">')
