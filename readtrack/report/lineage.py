"""Draws the papers' lineage with years from left to right and the list's sections as bands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from readtrack.reading_list.catalog import Paper
from readtrack.svg import Drawn, element, text

_FROM = 2012  # from this year on, years are wider, because they have more papers
_EARLY, _LATE = 40, 56  # width of a year in pixels
_LANE, _TITLE, _TOP = 22, 26, 34
_LETTER = 7.6  # approximate width in pixels
_BOW = 34  # pixels, twice the height of an arc over other papers in the same row
_POINTED_AT = "stroke:var(--arm0);stroke-width:2.4;opacity:1"


@dataclass(frozen=True, slots=True)
class ClaimCount:
    """The number of a paper's reproduced measured claims."""

    reproduced: int
    measured: int

    @property
    def kind(self) -> str:
        if not self.measured:
            return "exact"
        return "all" if self.reproduced == self.measured else "some" if self.reproduced else "none"

    @property
    def words(self) -> str:
        if not self.measured:
            return "no measured claims"
        return f"{self.reproduced} of {self.measured} measured claims reproduced"


@dataclass(frozen=True, slots=True)
class Drawing:
    """The drawing. rules: CSS that highlights a paper's lines on hover."""

    picture: Drawn
    rules: str


def drawing(
    papers: Mapping[str, Paper],
    sections: Sequence[tuple[str, Sequence[str]]],
    standing: Mapping[str, ClaimCount],
    written: Iterable[str],
) -> Drawing:
    """Draw the lineage. papers: all papers of the sections. written: papers that have a page."""
    shown = [paper for _, ids in sections for paper in ids]
    columns, width = _years({papers[one].year for one in shown})
    marks: list[str] = [
        text(str(year or "?"), class_="yr", x=x, y=20, text_anchor="middle") for year, x in columns.items()
    ]
    places, top = {}, _TOP
    for title, ids in sections:
        lanes: list[float] = []
        start = top
        for one in sorted(ids, key=lambda one: (papers[one].year, one)):
            x = columns[papers[one].year]
            lane = next((at for at, end in enumerate(lanes) if end < x - 8), len(lanes))
            lanes[lane : lane + 1] = [x + 16 + _LETTER * len(one)]
            places[one] = (x, start + _TITLE + 10 + lane * _LANE)
        top = start + _TITLE + _LANE * len(lanes) + 10
        marks.append(element("rect", class_="band", x=0, y=start, width=width, height=top - start - 4))
        marks.append(text(title, class_="s", x=8, y=start + 15))
    edges = [(parent, one) for one in shown for parent in _nearest(papers, one) if parent in places]
    marks += [_edge(parent, one, places) for parent, one in edges]
    pages = set(written)
    marks += [_node(papers[one], places[one], standing[one], linked=one in pages) for one in shown]
    label = "Papers by year and section, with lines to those that build on them. A list follows below."
    picture = element(
        "svg", *marks, class_="lin", width=width, height=top, viewBox=f"0 0 {width} {top}", role="group",
        aria_label=label,
    )  # fmt: skip
    rules = [
        f".lin:has(#n-{one}:is(:hover,:focus)) .e:is(.f-{one},.t-{one}){{{_POINTED_AT}}}" for one in shown
    ]
    return Drawing(picture, "".join([".lin:has(a:is(:hover,:focus)) .e{opacity:.12}", *rules]))


def _years(years: Iterable[int]) -> tuple[dict[int, int], int]:
    """The x position of each year with papers, and the total width."""
    x, columns = 22, {}
    for year in sorted(years):
        columns[year] = x
        x += _LATE if year >= _FROM else _EARLY
    return columns, x + 90


def _nearest(papers: Mapping[str, Paper], one: str) -> list[str]:
    """The papers that it builds on directly (transitive reduction)."""
    parents = [parent for parent in papers[one].builds_on if parent in papers]
    above = {parent: _above(papers, parent) for parent in parents}
    return [one for one in parents if not any(one in above[other] for other in parents if other != one)]


def _above(papers: Mapping[str, Paper], one: str) -> set[str]:
    found: set[str] = set()
    waiting = [one]
    while waiting:
        for parent in papers[waiting.pop()].builds_on:
            if parent in papers and parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def _edge(parent: str, one: str, places: Mapping[str, tuple[int, int]]) -> Drawn:
    (a, b), (c, d) = places[parent], places[one]
    if b == d and any(y == b and min(a, c) < x < max(a, c) for x, y in places.values()):
        path = f"M{a},{b}Q{(a + c) // 2},{b - _BOW} {c},{d}"  # an arc over the papers in between
    else:
        bend = (c - a) // 2 if c > a else 30
        path = f"M{a},{b}C{a + bend},{b} {c - bend},{d} {c},{d}"
    return element("path", class_=f"e f-{parent} t-{one}", d=path)


def _node(paper: Paper, place: tuple[int, int], standing: ClaimCount, *, linked: bool) -> Drawn:
    x, y = place
    dot = "dot full" if standing.kind == "all" else "dot"
    inside = [
        element("title", text_only(f"{paper.dated}: {standing.words}")),
        element("circle", class_=dot, cx=x, cy=y, r=2.5 if standing.kind == "exact" else 5.5),
    ]
    if standing.kind == "some":
        inside.append(element("circle", class_="pt", cx=x, cy=y, r=2.6))
    inside.append(text(paper.id, class_="halo", x=x + 9, y=y + 4.5))
    if not linked:
        return element("g", *inside)
    return element("a", *inside, id=f"n-{paper.id}", href=f"papers/{paper.id}.html")


def text_only(words: str) -> str:
    from html import escape

    return escape(words, quote=False)
