"""Markdown as HTML: no HTML of its own, no pictures but ours, no link that runs something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from readtrack.svg import Drawn

Target = Callable[[str], str | None]


def outside(address: str) -> str | None:
    """Links to the web stay; all others go."""
    return address if address.startswith(("https://", "http://")) else None


def html(text: str, *, heading: int = 1, target: Target = outside, pictures: bool = False) -> Drawn:
    """`text` as HTML.

    heading   the level of its first headings
    target    a link's address to what it becomes; None: its words stay, the link goes
    pictures  whether there are any: one in a note would be a request to wherever it says
    """
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    if not pictures:
        reader.disable("image")
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + heading - 1)}"
        if "style" in token.attrs:  # how a table's column is aligned: no page has style of its own
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
    """Wide tables and code scroll by themselves, with the keyboard, too."""
    first, *rest = text.split("<table>")
    scroll = '<div class="scroll" tabindex="0" role="region" aria-label="Table {}"><table>'
    pieces = (
        scroll.format(number) + piece.replace("</table>", "</table></div>", 1)
        for number, piece in enumerate(rest, start=1)
    )
    return (first + "".join(pieces)).replace("<pre>", '<pre tabindex="0">')
