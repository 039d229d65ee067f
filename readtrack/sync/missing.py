"""Add missing facts to the list once a source has provided them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.reading_list.catalog import Catalog, Paper
from readtrack.reading_list.insert import filled
from readtrack.sync import metadata
from readtrack.sync.add import GivenFacts, rewrite, shortened


def fill_in(home: Home, path: Path, papers: Sequence[Paper], found: Mapping[str, GivenFacts]) -> list[str]:
    """Add missing facts of `papers` to the list at `path`, and return the ids of changed papers.

    found  facts by id; facts of arXiv papers come from the fetched metadata

    Raises ReadtrackError, with the list unchanged, if it cannot be edited.
    """
    facts = {paper.id: _usable(paper, _facts(home, paper, found)) for paper in papers}
    changed = [paper for paper in papers if facts[paper.id]]
    if not changed:
        return []

    def change(text: str) -> str:
        return reduce(lambda so_far, paper: filled(so_far, paper, facts[paper.id]), changed, text)

    def check(old: Catalog, new: Catalog) -> None:
        ids = {paper.id for paper in changed}
        if _others(old, ids) != _others(new, ids) or old.listed() != new.listed():
            raise ReadtrackError(
                "filling in the facts would change something else, so the list was not changed."
            )

    rewrite(home, path, path, change, check)
    return [paper.id for paper in changed]


def _facts(home: Home, paper: Paper, found: Mapping[str, GivenFacts]) -> GivenFacts:
    if paper.id in found or not paper.sources or paper.sources[0].kind != "arxiv":
        return found.get(paper.id, GivenFacts())
    known = metadata.load(home.metadata, paper.id, paper.sources[0].value) or {}
    year = str(known.get("published", ""))[:4]
    return GivenFacts(
        str(known.get("title", "")), tuple(known.get("authors", ())), int(year) if year.isdecimal() else None
    )


def _usable(paper: Paper, facts: GivenFacts) -> dict[str, Any]:
    """The missing facts that were found."""
    values = {"title": facts.title, "authors": shortened(facts.authors), "year": facts.year}
    return {name: values[name] for name in paper.missing if values[name]}


def _others(listed: Catalog, ids: set[str]) -> list[Paper]:
    return [paper._replace(line=0) for id_, paper in listed.papers.items() if id_ not in ids]
