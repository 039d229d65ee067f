"""A search over the library: fields are tested on the library, words on the full-text index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from readtrack.fulltext.index import KINDS, Fit, FullText, around, kind_of
from readtrack.fulltext.query import (
    FIELDS,
    Field,
    Node,
    Not,
    Or,
    Word,
    fields,
    parse,
    unknown_field,
    words,
    years,
)
from readtrack.fulltext.units import files
from readtrack.fulltext.words import SHORTEST
from readtrack.library import Library
from readtrack.reading_list.catalog import Row, Section
from readtrack.reading_list.journal import STATES
from readtrack.runs.evidence import shown_verdict
from readtrack.text import folded, nearest, quoted

_CAN = ("run",)
_HAS = ("note", "pdf", "abstract", "rating")
_TAG = KINDS.index("tag")
_TAGGED = (6, _TAG << 20)  # after matches in a title or author
_NEARLY = 15  # added to the rank of a match with a corrected spelling
_NOTED = 60  # number of best matches whose location is shown


class RankedMatch(NamedTuple):
    """How a subject matches, for a list.

    rank   lower is better
    words  words to highlight in its names and titles, folded
    note   location of the match if not in names and titles: "by Herbert Robbins", "#gpu", "in the idea"
    """

    rank: int
    words: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """The best match of a subject: kind of text, page of a PDF, and context.

    The match is between \\x01 and \\x02.
    """

    kind: str
    page: int
    snippet: str


class Search:
    """One query over one state of the library.

    found    every matching subject, in no particular order
    instead  words that occur in no list, abstract or note, each with the corrected word that was searched as
             well
    """

    def __init__(self, library: Library, index: FullText, text: str) -> None:
        self._library, self._index = library, index
        self._query = parse(text)
        self.instead: dict[str, str] = {}
        while True:
            index.settle(library)
            self.found = self._of(self._query, index.everything)
            if index.ready:  # else its file was damaged
                break
        self._places = index.places
        self._by_rank: dict[int, list[str]] = {}  # faster than sorting, because there are few ranks
        for subject, (rank, _) in self.found.items():
            if rank in self._by_rank:
                self._by_rank[rank].append(subject)
            else:
                self._by_rank[rank] = [subject]

    def __iter__(self) -> Iterator[str]:
        """Every matching subject, best first, in the list's order for equal ranks."""
        for rank in sorted(self._by_rank):  # a list shows few of them, so the others are not sorted
            self._by_rank[rank].sort(key=self._places.__getitem__)
            yield from self._by_rank[rank]

    @property
    def told(self) -> tuple[str, ...]:
        """The words to highlight."""
        return (*(word.text for word in words(self._query)), *self.instead.values())

    @property
    def suggestion(self) -> str:
        """The corrected words that were searched as well, or ""."""
        return " ".join(
            f"{quoted(word)} may be misspelt: results for {quoted(near)} are included."
            for word, near in self.instead.items()
        )

    def hits(self, subjects: Iterable[str]) -> dict[str, Hit]:
        """The best match of each subject; {} if the query has no words."""
        numbers = {subject: self.found[subject][1] for subject in subjects} if self.told else {}
        bodies = self._index.around(self.told, numbers.values())
        return {
            subject: Hit(
                KINDS[kind_of(number)],
                number & 0xFFFFF if KINDS[kind_of(number)] == "pdf" else 0,
                bodies.get(number) or self._in_library(subject, kind_of(number)),
            )
            for subject, number in numbers.items()
        }

    def _in_library(self, subject: str, kind: int) -> str:
        if kind == _TAG:
            tags = sorted(self._library.tags(subject))
            return "#" + next((tag for tag in tags if any(one in folded(tag) for one in self.told)), "")
        paper = self._library.catalog.papers.get(subject)
        return around(paper.title if paper is not None else self._library.wording(subject), self.told)

    def _of(self, node: Node, among: Iterable[str]) -> dict[str, Fit]:
        """The matches of a node do not depend on the rest of the query, so more terms only narrow it."""
        if isinstance(node, Word):
            return self._with_word(node)
        if isinstance(node, Field):
            fits = _test(self._library, node)
            return {subject: (0, 0) for subject in among if fits(subject)}
        if isinstance(node, Not):
            found = self._of(node.part, among)
            return {subject: (0, 0) for subject in among if subject not in found}
        # Words first, because they are fast and have few matches.
        parts = sorted(node.parts, key=lambda one: not isinstance(one, Word))
        if isinstance(node, Or):
            either: dict[str, Fit] = {}
            for part in parts:
                for subject, fit in self._of(part, among).items():
                    either[subject] = min(fit, either.get(subject, fit))
            return either
        wanted = [part for part in parts if isinstance(part, Word)]
        every = self._with_words(wanted) if wanted else dict.fromkeys(among, (0, 0))
        for part in parts[len(wanted) :]:
            every = _both(every, self._of(part, every))
        return every

    def _with_words(self, wanted: list[Word]) -> dict[str, Fit]:
        """Texts with all of the words, and papers with that name: flash attention finds flashattention."""
        found = self._with_word(wanted[0])
        for word in wanted[1:]:
            found = _both(found, self._with_word(word))
        if len(wanted) > 1:
            together = self._index.heads(" ".join(word.text for word in wanted))
            for subject, fit in together.items():
                found[subject] = min(fit, found.get(subject, fit))
        return found

    def _with_word(self, word: Word) -> dict[str, Fit]:
        text = word.text
        found = dict(self._index.fits(text, phrase=word.phrase))
        if word.phrase:
            return found
        for subject, tags in self._library.tagged().items():
            if subject in self._index.places and any(text in folded(tag) for tag in tags):
                found[subject] = min(_TAGGED, found.get(subject, _TAGGED))
        # A PDF may contain the same misspelling.
        only_in_pdfs = all(KINDS[kind_of(number)] == "pdf" for _, number in found.values())
        if len(text) >= SHORTEST and ":" not in text and only_in_pdfs:
            near = self._index.near(text)
            if near:
                self.instead[text] = near
                for subject, (rank, number) in self._index.fits(near).items():
                    found.setdefault(subject, (rank + _NEARLY, number))
        return found


def _both(one: dict[str, Fit], other: dict[str, Fit]) -> dict[str, Fit]:
    """Subjects that match both. The place reported is the one in the less prominent kind of text."""
    return {
        subject: (rank + more, there if there >> 20 & 15 > number >> 20 & 15 else number or there)
        for subject, (rank, number) in one.items()
        if subject in other
        for more, there in (other[subject],)
    }


def _test(library: Library, asked: Field) -> Callable[[str], bool]:
    """A test of whether a subject satisfies the field."""
    value, papers = asked.value, library.catalog.papers
    match asked.name:
        case "state":
            states = [value] if value in STATES else [one for one in STATES if one.startswith(value)]
            # A paper that is not on the list is not "todo"; it has a state only after the reader sets one.
            without = {id_ for id_ in papers.keys() - library.listed.keys() if library.since(id_) is None}
            return lambda subject: subject not in without and library.state(subject) in states
        case "tag":
            tagged = library.tagged().items()
            fitting = {
                subject for subject, tags in tagged if any(folded(tag).startswith(value) for tag in tags)
            }
        case "can":
            fitting = set(library.runnable()) if "run".startswith(value) else set()
        case "year":
            low, high = years(value) or (1, 0)
            fitting = {id_ for id_, paper in papers.items() if paper.year and low <= paper.year <= high}
        case "author":
            fitting = {
                id_ for id_, paper in papers.items() if any(value in folded(one) for one in paper.authors)
            }
        case "section":
            fitting = _in_section(library, value)
        case "claim":
            shown = {
                id_: [shown_verdict(one.verdict, one.kind) for one in of]
                for id_, of in library.shipped_verdicts.items()
            }
            fitting = {id_ for id_, of in shown.items() if any(one.startswith(value) for one in of)}
        case _:
            fitting = _having(library, value)
    return fitting.__contains__


def _in_section(library: Library, words: str) -> set[str]:
    fitting: set[str] = set()
    inside = False
    for _, item in library.catalog.walk():
        if isinstance(item, Section):
            inside = words in folded(item.title)
        elif isinstance(item, Row) and inside:
            fitting.update(item.papers or (item.subject,))
    return fitting


def _having(library: Library, what: str) -> set[str]:
    if what == "note":
        return {subject for subject in library.noted() if library.note(subject).strip()}
    if what == "rating":
        everything = (*library.catalog.papers, *library.bare_rows())
        return {subject for subject in everything if library.rating(subject) is not None}
    if what in ("pdf", "abstract"):
        folder, suffix = (library.home.pdfs, ".pdf") if what == "pdf" else (library.home.metadata, ".json")
        return set(files(folder, suffix))
    return set()


class Matches(Mapping[str, RankedMatch]):
    """The matches, best first, for a list, with words to highlight and locations for the best ones.

    Matches are created on access, because only a few of ten thousand are seen.
    """

    def __init__(self, search: Search) -> None:
        self._search, self._fits, self._told = search, search.found, search.told
        elsewhere = [one for one in islice(search, _NOTED) if kind_of(search.found[one][1])]
        self._notes = {subject: where(hit) for subject, hit in search.hits(elsewhere).items()}

    def __getitem__(self, subject: str) -> RankedMatch:
        return RankedMatch(self._fits[subject][0], self._told, self._notes.get(subject, ""))

    def __contains__(self, subject: object) -> bool:
        return subject in self._fits

    def __iter__(self) -> Iterator[str]:
        return iter(self._search)

    def __len__(self) -> int:
        return len(self._fits)


def where(hit: Hit, *, full: bool = False) -> str:
    """`in the idea`, `p. 7: … context …`; `full`: always with the context."""
    words = hit.snippet.replace("\x01", "").replace("\x02", "")
    return {
        "title": "",
        "tag": words,
        "year": words,
        "row": "in its row",
        "author": f"by {words}",
        "pdf": f"p. {hit.page}: {words}",
        "note": f"in your note: {words}",
    }.get(hit.kind, f"in the {hit.kind}" + (f": {words}" if full else ""))


def doubt(library: Library, text: str) -> str:
    """Why a search cannot find anything: an unknown field or value; else ""."""
    if name := unknown_field(text):
        hint = nearest(name, FIELDS, "")
        return f"There is no field {quoted(name)}{f'; {hint}' if hint else '.'} Fields: {', '.join(FIELDS)}."
    for asked in fields(parse(text)):
        if asked.name == "state" and not any(state.startswith(asked.value) for state in STATES):
            return f"There is no state {quoted(asked.value)}. Available: {', '.join(STATES)}."
        if asked.name == "year" and years(asked.value) is None:
            return f"{quoted(asked.value)} is not a year: write year:2017 or year:2017..2020."
        if asked.name in ("can", "has"):
            known = _CAN if asked.name == "can" else _HAS
            if not any(word.startswith(asked.value) for word in known):
                return f"There is no {asked.name}:{asked.value}. Available: {', '.join(known)}."
        if asked.name == "tag":
            tags = sorted({tag for of in library.tagged().values() for tag in of})
            if not any(folded(tag).startswith(asked.value) for tag in tags):
                there = f"Available: {', '.join(tags)}." if tags else "No paper has a tag yet."
                return f"There is no tag {quoted(asked.value)}. {there}"
        if asked.name == "section":
            titles = [section.title for section in library.catalog.sections]
            if not any(asked.value in folded(title) for title in titles):
                return f"No section's title contains {quoted(asked.value)}. Available: {', '.join(titles)}."
    return ""
