"""A search over the library: the query's fields asked of the library, its words of the full-text index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from readtrack.fulltext.index import KINDS, FullText, Hit, rank
from readtrack.fulltext.query import Field, Node, Not, Or, Word, fields, parse, words, years
from readtrack.library import Library
from readtrack.reading_list.catalog import Row, Section
from readtrack.reading_list.journal import STATES
from readtrack.reading_list.search import Match, folded
from readtrack.text import quoted

_CAN = ("run",)
_HAS = ("note", "pdf", "abstract", "rating")


@dataclass(frozen=True, slots=True)
class Result:
    """A subject that fits; `hit` is None where no words were asked for."""

    subject: str
    rank: int
    hit: Hit | None


class Search:
    """One query over one state of the library. `forgiving`: a word that nothing has may have a slip in it."""

    def __init__(self, library: Library, index: FullText, text: str, *, forgiving: bool = True) -> None:
        self._library, self._index, self._forgiving = library, index, forgiving
        self.query = parse(text)
        self._ranks: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._instead: dict[str, str] = {}  # a word with a slip, to the word that it nearly is

    def subjects(self) -> dict[str, int]:
        """Every subject that fits, with its rank, the best first; else what nearly fits."""
        everything = self._index.order(self._library.catalog, lambda: subjects(self._library))
        found = self._of(self.query, everything)
        if not found and self._forgiving:
            slips = [word for word in words(self.query) if not word.phrase and len(word.text) >= 4]
            for word in slips:
                if not self._index.places(word.text) and (near := self._index.near(word.text)):
                    self._instead[word.text] = near[0]
            found = self._of(self.query, everything) if self._instead else found
        ranks = self._ranks
        # Those of one rank stay in the list's order.
        ordered = sorted((one for one in everything if one in found), key=lambda one: ranks.get(one, 0))
        return {subject: ranks.get(subject, 0) for subject in ordered}

    @property
    def told(self) -> list[tuple[str, bool]]:
        """The words to point out: text, and whether it is a phrase."""
        return [(self._instead.get(word.text, word.text), word.phrase) for word in words(self.query)]

    def hits(self, subjects: Iterable[str]) -> dict[str, Hit]:
        """Where these fit best, with the words around."""
        return self._index.hits(
            [text for text, _ in self.told], {s: self._places[s] for s in subjects if s in self._places}
        )

    def is_told(self, subject: str) -> bool:
        """Whether it fits elsewhere than in its names and titles, where the words are pointed out."""
        return rank(self._places.get(subject, 0)) > KINDS.index("title")

    def results(self, limit: int | None = None) -> list[Result]:
        found = self.subjects()
        shown = list(found)[:limit]
        hits = self.hits(shown)
        return [Result(subject, found[subject], hits.get(subject)) for subject in shown]

    def _of(self, node: Node, among: Iterable[str]) -> set[str]:
        if isinstance(node, Word):
            return self._with_word(node).intersection(among)
        if isinstance(node, Field):
            return {subject for subject in among if _has(self._library, subject, node, self._index)}
        if isinstance(node, Not):
            ranks, places = dict(self._ranks), dict(self._places)
            found = self._of(node.part, among)
            self._ranks, self._places = ranks, places
            return set(among) - found
        if isinstance(node, Or):
            return set().union(*(self._of(part, among) for part in node.parts))
        left = set(among)
        # Words first: they are quick, and leave little to ask the fields about.
        for part in sorted(node.parts, key=lambda one: not isinstance(one, Word)):
            left &= self._of(part, left)
        return left

    def _with_word(self, word: Word) -> set[str]:
        text = self._instead.get(word.text, word.text)
        found = self._index.places(text, phrase=word.phrase)
        if not self._ranks:
            self._ranks = {subject: rank(number) for subject, number in found.items()}
            self._places = found
        else:
            ranks, places = self._ranks, self._places
            for subject, number in found.items():
                ranks[subject] = ranks.get(subject, 0) + rank(number)
                # The place that is told is that of the word which is the hardest to find.
                if rank(number) >= rank(places.get(subject, 0)):
                    places[subject] = number
        tags = {} if word.phrase else self._library.tagged()
        return {subject for subject, of in tags.items() if any(text in folded(tag) for tag in of)}.union(
            found
        )


def _has(library: Library, subject: str, asked: Field, index: FullText) -> bool:
    value = asked.value
    paper = library.catalog.papers.get(subject)
    match asked.name:
        case "state":
            state = library.state(subject)
            return state == value if value in STATES else state.startswith(value)
        case "tag":
            return any(folded(tag).startswith(value) for tag in library.tags(subject))
        case "can":
            return "run".startswith(value) and subject in library.runnable()
        case "year":
            span = years(value)
            return paper is not None and span is not None and span[0] <= paper.year <= span[1]
        case "author":
            return paper is not None and any(value in folded(author) for author in paper.authors)
        case "section":
            return any(value in folded(title) for title in sections_of(library).get(subject, ()))
        case "claim":
            verdicts = [one.verdict for one in library.shipped_verdicts.get(subject, ())]
            return any(verdict.startswith(value) for verdict in verdicts)
        case _:
            return {
                "note": lambda: bool(library.note(subject).strip()),
                "pdf": lambda: paper is not None and library.pdf(subject) is not None,
                "abstract": lambda: paper is not None and library.metadata(subject) is not None,
                "rating": lambda: library.rating(subject) is not None,
            }.get(value, lambda: False)()


def sections_of(library: Library) -> dict[str, list[str]]:
    """Subject to the titles of the sections that it stands in."""
    found: dict[str, list[str]] = {}
    title = ""
    for _, item in library.catalog.walk():
        if isinstance(item, Section):
            title = item.title
        elif isinstance(item, Row):
            for subject in item.papers or (item.subject,):
                found.setdefault(subject, []).append(title)
    return found


def subjects(library: Library) -> dict[str, None]:
    """All of the list, in its order, then the papers that no row names."""
    listed: dict[str, None] = {}
    for _, item in library.catalog.walk():
        if isinstance(item, Row):
            listed.update(dict.fromkeys(item.papers or (item.subject,)))
    listed.update(dict.fromkeys(library.catalog.papers))
    return listed


def matches(search: Search, *, notes: int = 60) -> dict[str, Match]:
    """What fits, for a list: which words to point out, and for the first ones where the rest stands."""
    found = search.subjects()
    told = tuple(text for text, _ in search.told)
    hits = search.hits([one for one in list(found)[:notes] if search.is_told(one)])
    return {
        subject: Match(number, told, where(hits[subject]) if subject in hits else "")
        for subject, number in found.items()
    }


def where(hit: Hit, *, full: bool = False) -> str:
    """`in the summary`, `p. 7: … the words around …`; `full`: the words always."""
    words = hit.snippet.replace("\x01", "").replace("\x02", "")
    return {
        "name": "",
        "title": "",
        "row": "in its row",
        "author": f"by {words}",
        "pdf": f"p. {hit.page}: {words}",
        "note": f"in your note: {words}",
    }.get(hit.kind, f"in the {hit.kind}" + (f": {words}" if full else ""))


def doubt(library: Library, text: str) -> str:
    """What is wrong with a search that can find nothing: a field's value that there is not; else ""."""
    for asked in fields(parse(text)):
        if asked.name == "state" and not any(state.startswith(asked.value) for state in STATES):
            return f"There is no state {quoted(asked.value)}. There is: {', '.join(STATES)}."
        if asked.name == "year" and years(asked.value) is None:
            return f"{quoted(asked.value)} is no year: write year:2017 or year:2017..2020."
        if asked.name in ("can", "has"):
            known = _CAN if asked.name == "can" else _HAS
            if not any(word.startswith(asked.value) for word in known):
                return f"There is no {asked.name}:{asked.value}. There is: {', '.join(known)}."
        if asked.name == "tag":
            tags = sorted({tag for of in library.tagged().values() for tag in of})
            if not any(folded(tag).startswith(asked.value) for tag in tags):
                there = f"There is: {', '.join(tags)}." if tags else "No paper has a tag yet."
                return f"There is no tag {quoted(asked.value)}. {there}"
        if asked.name == "section":
            titles = [section.title for section in library.catalog.sections]
            if not any(asked.value in folded(title) for title in titles):
                return f"No section has {quoted(asked.value)} in it. There is: {', '.join(titles)}."
    return ""
