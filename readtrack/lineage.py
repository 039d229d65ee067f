"""Lineage (which papers build on which), timelines, and reading suggestions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from readtrack.errors import ReadtrackError
from readtrack.library import Library
from readtrack.reading_list.catalog import Catalog, Paper, Row, Section
from readtrack.reading_list.journal import DONE_WITH
from readtrack.text import nearest, quoted


@dataclass(slots=True)
class LineageNode:
    """A paper in a tree. `again`: the paper already appears above, with its subtree."""

    paper: str
    below: list[LineageNode] = field(default_factory=list)
    again: bool = False


def ancestors(catalog: Catalog, paper: str) -> LineageNode:
    """The tree of papers that `paper` builds on."""
    return _tree(paper, lambda id_: _by_year(catalog, catalog.papers[id_].builds_on), set())


def descendants(catalog: Catalog, paper: str) -> LineageNode:
    """The tree of papers that build on `paper`."""
    led_to = followers(catalog)
    return _tree(paper, lambda id_: _by_year(catalog, led_to.get(id_, ())), set())


def followers(catalog: Catalog) -> dict[str, list[str]]:
    """The papers that build on each paper."""
    led_to: dict[str, list[str]] = {}
    for paper in catalog.papers.values():
        for parent in paper.builds_on:
            led_to.setdefault(parent, []).append(paper.id)
    return led_to


def _tree(paper: str, following: Callable[[str], list[str]], seen: set[str]) -> LineageNode:
    below = following(paper)
    if paper in seen and below:
        return LineageNode(paper, again=True)
    seen.add(paper)
    return LineageNode(paper, [_tree(id_, following, seen) for id_ in below])


def _by_year(catalog: Catalog, ids: Iterator[str] | tuple[str, ...] | list[str]) -> list[str]:
    return sorted(ids, key=lambda id_: when(catalog.papers[id_]))


def drawn(nodes: list[LineageNode], before: str = "") -> Iterator[tuple[str, LineageNode]]:
    """Each node with the tree branches to print in front of it."""
    for number, node in enumerate(nodes, start=1):
        last = number == len(nodes)
        yield f"{before}{'└' if last else '├'} ", node
        yield from drawn(node.below, f"{before}{' ' if last else '│'} ")


def when(paper: Paper) -> tuple[int, int]:
    """Year and month of publication. The month comes from an arXiv id of the same year."""
    found = re.search(r"(?:^|/)(\d\d)(\d\d)", paper.arxiv_id or "")
    same_year = found is not None and (1900 + int(found[1])) % 100 == paper.year % 100
    return (paper.year, int(found[2]) if found and same_year else 0)


# Timelines


@dataclass(frozen=True, slots=True)
class Moment:
    """A paper on a timeline. `after`: the papers of the timeline that it builds on."""

    paper: Paper
    after: tuple[str, ...]


def timeline(catalog: Catalog, topic: str) -> list[Moment]:
    """The papers of sections or rows whose text contains `topic`, oldest first.

    Raises ReadtrackError if there are none.
    """
    wanted = _spelling(topic)
    found: dict[str, None] = {}
    inside = False
    for _, item in catalog.walk():
        if isinstance(item, Section):
            inside = wanted in _spelling(item.title)
        elif isinstance(item, Row) and (inside or wanted in _spelling(item.text)):
            found.update(dict.fromkeys(item.papers))
    if not found or not wanted:
        titles = [section.title for section in catalog.sections]
        hint = nearest(topic, titles, f"sections are {', '.join(titles)}")
        raise ReadtrackError(f"no section and no row with papers contains {quoted(topic)}; {hint}.")
    papers = sorted((catalog.papers[id_] for id_ in found), key=when)
    return [Moment(paper, tuple(id_ for id_ in paper.builds_on if id_ in found)) for paper in papers]


def _spelling(text: str) -> str:
    """Unifies British and American spelling (normalisation, normalization)."""
    return re.sub(r"is(e|ation|ing)", r"iz\1", text.casefold().strip())


# Reading suggestions


@dataclass(frozen=True, slots=True)
class Proposal:
    """A paper to read next.

    known: the papers it builds on that the reader has read; missing: the papers it builds on that are on the
    list and not read yet; unlocks: unread papers on the list that build on it, directly or indirectly.
    """

    paper: Paper
    known: tuple[str, ...]
    missing: tuple[str, ...]
    unlocks: tuple[str, ...]

    @property
    def reason(self) -> str:
        parts = []
        if self.missing:
            parts.append(
                f"{', '.join(self.missing)} {'is' if len(self.missing) == 1 else 'are'} still to be read"
            )
        elif self.known:
            which = "its only prerequisite" if len(self.known) == 1 else "all its prerequisites"
            which = (
                which if len(self.known) == len(self.paper.builds_on) else "its prerequisites on your list"
            )
            parts.append(f"you have read {which}: {', '.join(self.known)}")
        else:
            parts.append("no prerequisites on your list")
        if self.unlocks:
            shown = ", ".join(self.unlocks[:4]) + (", ..." if len(self.unlocks) > 4 else "")
            count = len(self.unlocks)
            build = "1 paper on your list builds" if count == 1 else f"{count} papers on your list build"
            parts.append(f"{build} on it: {shown}")
        return "; ".join(parts)


def proposals(library: Library) -> list[Proposal]:
    """The unread papers of the list, best first: by fewest missing papers, then by most unlocked ones."""
    catalog = library.catalog
    listed = list(library.listed)
    unread = {id_ for id_ in listed if library.state(id_) == "todo"}
    led_to = followers(catalog)
    found = []
    for id_ in listed:
        if id_ in unread:
            parents = catalog.papers[id_].builds_on
            known = tuple(parent for parent in parents if library.state(parent) in DONE_WITH)
            missing = tuple(one for one in parents if one not in known and one in library.listed)
            later = _reached(id_, led_to)
            unlocks = tuple(other for other in listed if other in later and other in unread)
            found.append(Proposal(catalog.papers[id_], known, missing, unlocks))
    return sorted(found, key=lambda one: (len(one.missing), -len(one.unlocks)))


def _reached(paper: str, led_to: Mapping[str, list[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(led_to.get(paper, ()))
    while waiting:
        id_ = waiting.pop()
        if id_ not in reached:
            reached.add(id_)
            waiting += led_to.get(id_, ())
    return reached
