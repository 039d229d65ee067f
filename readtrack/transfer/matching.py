"""Matches rows of a list to papers by links and ids, wording, titles and aliases.

Only certain matches are accepted. An ambiguous row is returned with its candidates. An arXiv id or a DOI
takes precedence over the title: if it belongs to another paper, the title is ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from readtrack.reading_list.catalog import Catalog, Paper, Row, Source
from readtrack.reading_list.sources import SMALL_WORDS, letters, source_key, sources_in, without_links
from readtrack.text import folded

_A_PAPER = re.compile(r"^\s*(?:the\s+)?(.+?)(?:\s+paper)?\s*$", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_APART = re.compile(r"\s+[-–—/+|]\s+|[,;&|]|\band\b|\bor\b")

_SURE = 0.87  # minimum similarity of a row's text and a title
_MAYBE = 0.6
_CANDIDATES = 3
_ALIKE = 5
_BEGINNING = 4  # words at the beginning of a title that identify it
BY_SOURCE = {"arxiv": "arXiv id", "doi": "DOI", "pdf": "link", "page": "link"}


@dataclass(frozen=True, slots=True)
class Match:
    """The result: `papers`, with `how` they were found, or `candidates`."""

    papers: tuple[str, ...] = ()
    how: str = ""
    candidates: tuple[str, ...] = ()


class Matcher:
    """Index of the known papers. `lists` contribute the texts of rows that name papers."""

    def __init__(self, papers: Mapping[str, Paper], lists: Iterable[Catalog] = ()) -> None:
        self._papers = papers
        self._own: dict[str, list[str]] = {}  # papers by the keys of their own sources
        self._noted: dict[str, list[str]] = {}  # papers by the keys of related works among their sources
        self._names: dict[str, list[str]] = {}
        self._titles: dict[str, str] = {}
        self._wordings: dict[str, tuple[str, ...]] = {}
        self._words: dict[str, set[str]] = {}
        self._matched: dict[str, Match] = {}
        for paper in papers.values():
            self._know(paper)
        common = max(3, len(papers) // 50)
        self._words = {word: ids for word, ids in self._words.items() if len(ids) <= common}
        for listed in lists:
            for _, item in listed.walk():
                if isinstance(item, Row) and item.papers and set(item.papers) <= papers.keys():
                    self._wordings.setdefault(letters(item.text), item.papers)

    def learn(self, paper: Paper) -> None:
        """Add a paper by its sources only, because its title was written by the reader."""
        self._matched.clear()
        for source in paper.sources:
            self._own.setdefault(source_key(source), []).append(paper.id)
        self._titles[paper.id] = letters(paper.title)

    def _know(self, paper: Paper) -> None:
        own = paper.own_sources
        for source in paper.sources:
            keys = self._own if source in own else self._noted
            keys.setdefault(source_key(source), []).append(paper.id)
        for name in (paper.id, *paper.aliases, paper.title):
            if key := letters(name):
                ids = self._names.setdefault(key, [])
                if paper.id not in ids:
                    ids.append(paper.id)
        self._titles[paper.id] = letters(paper.title)
        for word in _words(paper.title):
            self._words.setdefault(word, set()).add(paper.id)

    def match(self, text: str) -> Match:
        """The papers for a row of a checklist."""
        if text not in self._matched:
            known = self._wordings.get(letters(text))
            words = _bare(text)
            self._matched[text] = (
                Match(known, "wording") if known else self._found(words, list(sources_in(text)))
            )
        return self._matched[text]

    def match_entry(self, title: str, year: int | None, sources: Sequence[Source]) -> Match:
        """The paper for a bibliography entry, by a source or by its whole title."""
        found = self._found(f"{title} ({year})" if title and year else title, sources)
        if found.how in BY_SOURCE.values() or found.how == "links":
            return Match(found.papers[:1], found.how)
        if found.how in ("", "title", "name", "nearly the title", "beginning of the title"):
            return found
        return Match(candidates=found.papers if found.how == "title inside" else ())

    def _found(self, words: str, sources: Sequence[Source]) -> Match:
        found = [self._by_source(source, words) for source in sources]
        if named := tuple(dict.fromkeys(paper for one in found for paper in one.papers)):
            first = next(one.how for one in found if one.papers)
            return Match(named, first if len(named) == 1 else "links")
        if candidates := [one for match in found for one in match.candidates]:
            return Match(candidates=tuple(candidates[:_CANDIDATES]))
        # A row that is only a link has no title.
        near = self.by_title(words) if words else Match()
        if any(self.differs(id_, sources) for id_ in near.papers):
            near = Match()
        if near.papers:
            return near
        # A related work is recognised by its id but is a different paper.
        if any(source_key(source) in self._noted for source in sources):
            return Match()
        return Match(candidates=tuple(id_ for id_ in near.candidates if not self.differs(id_, sources)))

    def _by_source(self, source: Source, words: str) -> Match:
        ids = self._own.get(source_key(source), [])
        first = [id_ for id_ in ids if source_key(self._papers[id_].sources[0]) == source_key(source)] or ids
        titled = [id_ for id_ in first if self._titles[id_] in (letters(words), letters(_outside(words)))]
        # Between a paper and a part of it, whose title begins with the paper's title, choose the paper.
        whole = [id_ for id_ in first if all(self._titles[i].startswith(self._titles[id_]) for i in first)]
        for one in (first, titled, whole):
            if len(one) == 1:
                return Match((one[0],), BY_SOURCE.get(source.kind, "link"))
        return Match(candidates=tuple(first[:_CANDIDATES]))

    def differs(self, paper_id: str, sources: Iterable[Source]) -> bool:
        """Whether an arXiv id or a DOI in `sources` belongs to another paper."""
        paper = self._papers.get(paper_id)
        if paper is None:
            return False
        said = [source for source in sources if source.kind in ("arxiv", "doi")]
        known = {source_key(source) for source in paper.sources}
        kinds = {source.kind for source in paper.own_sources}
        return not any(source_key(source) in known for source in said) and any(
            source.kind in kinds for source in said
        )

    def by_title(self, text: str) -> Match:
        """Match by a title or an alias: exactly, as a part of the text, or approximately."""
        outside = _outside(text)
        inside = re.findall(r"[(\[]([^()\[\]]*)[)\]]", text)
        for words in (text, outside, *inside):
            if (match := self._named(words)) is not None:
                sure = match.how != "name" or self._of_that_time(match.papers[0], text)
                return match if sure else Match(candidates=match.papers)
        parts = [part for part in _APART.split(outside) if letters(part)]
        named = [self._named(part) for part in parts]
        if len(parts) > 1 and all(one is not None and one.papers for one in named):
            return Match(tuple(dict.fromkeys(p for one in named if one for p in one.papers)), "names")
        if match := self._holds_a_title(text) or self._begins_a_title(outside, text):
            return match
        near = self._near(outside, text)
        parted = tuple(p for one in named if one for p in (*one.papers, *one.candidates))
        if parted and not near.papers:
            return Match(candidates=tuple(dict.fromkeys((*parted, *near.candidates)))[:_CANDIDATES])
        return near

    def _named(self, text: str) -> Match | None:
        key = letters(text)
        said = letters(_A_PAPER.sub(r"\1", text))  # "the GPT-3 paper"
        ids = self._names.get(key) or self._names.get(key.removesuffix("s")) or self._names.get(said)
        if not ids:
            return None
        if len(ids) > 1:
            return Match(candidates=tuple(ids[:_CANDIDATES]))
        id_ = ids[0]
        if self._titles[id_] == key:
            return Match((id_,), "title")
        return Match((id_,), "name") if self._is_name(id_, text) else Match(candidates=(id_,))

    def _is_name(self, id_: str, text: str) -> bool:
        """Whether the text names this paper alone, like "LeNet-5" or the words of a title. An alias such
        as "diffusion" or "mixture of experts" is also the name of a whole field.
        """
        key, name = letters(_A_PAPER.sub(r"\1", text)), letters(id_)
        words = _tokens(_A_PAPER.sub(r"\1", text))
        if len(words) > 1 and (key.removesuffix("s") in self._titles[id_] or _abbreviates(name, words)):
            return True
        return name in key

    def _holds_a_title(self, text: str) -> Match | None:
        """Match a title of at least three words that occurs in the text."""
        whole = f" {' '.join(_tokens(text))} "
        among = {id_ for word in _words(text) for id_ in self._words.get(word, ())}
        found = []
        for id_ in sorted(among):
            title = _tokens(self._papers[id_].title)
            if len(title) >= 3 and f" {' '.join(title)} " in whole:
                found.append(id_)
        return Match((found[0],), "title inside") if len(found) == 1 else None

    def _begins_a_title(self, outside: str, text: str) -> Match | None:
        """Match the beginning of a single title, perhaps after the paper's name."""
        name, _, rest = outside.partition(":")
        named = self._named(name) if rest.strip() else None
        found = set()
        for words, ids in (
            (_tokens(outside), {id_ for word in _words(outside) for id_ in self._words.get(word, ())}),
            (_tokens(rest), set(named.papers) if named else set()),
        ):
            if len(words) >= _BEGINNING:
                found |= {id_ for id_ in ids if _tokens(self._papers[id_].title)[: len(words)] == words}
        if len(found) != 1 or not self._of_that_time(next(iter(found)), text):
            return None
        return Match((found.pop(),), "beginning of the title")

    def _of_that_time(self, id_: str, text: str) -> bool:
        """Whether the text has no year, or a year close to the paper's."""
        years, own = [int(year) for year in _YEAR.findall(text)], self._papers[id_].year
        return not years or not own or min(abs(year - own) for year in years) <= 1

    def _near(self, outside: str, text: str) -> Match:
        from difflib import SequenceMatcher

        wanted = letters(outside)
        if len(wanted) < 6:
            return Match()
        shared = Counter(id_ for word in _words(outside) for id_ in self._words.get(word, ()))
        scores = []
        for id_, _ in shared.most_common(50):
            pair = SequenceMatcher(None, wanted, self._titles[id_], autojunk=False)
            if pair.real_quick_ratio() >= _MAYBE <= pair.quick_ratio() and pair.ratio() >= _MAYBE:
                scores.append((pair.ratio(), id_))
        scores.sort(reverse=True)
        candidates = tuple(id_ for _, id_ in scores[:_CANDIDATES])
        if scores and scores[0][0] >= _SURE and (len(scores) == 1 or scores[1][0] < _SURE):
            title = self._papers[candidates[0]].title
            same_numbers = _numbers(outside) == _numbers(title)  # GPT-2 is not GPT-3
            if same_numbers and self._of_that_time(candidates[0], text):
                return Match(candidates[:1], "nearly the title")
        return Match(candidates=candidates)


def alike(text: str, papers: Mapping[str, Paper]) -> dict[str, tuple[str, ...]]:
    """Guesses of the paper for a line, best first, each with the rare words that it shares with the line."""
    words = {_stem(word): word for word in _tokens(_bare(text)) if _says_something(word)}
    stems = {
        id_: set(map(_stem, _tokens(" ".join((id_, *paper.aliases, paper.title, *paper.authors)))))
        for id_, paper in papers.items()
    }
    papers_with = Counter(stem for of in stems.values() for stem in of)
    rare = {stem for stem in words if 0 < papers_with[stem] <= max(3, len(papers) // 8)}
    scores = {id_: sum(1 / papers_with[stem] for stem in rare & of) for id_, of in stems.items()}
    best = sorted(filter(scores.__getitem__, scores), key=lambda id_: -scores[id_])[:_ALIKE]
    return {id_: tuple(words[stem] for stem in words if stem in rare & stems[id_]) for id_ in best}


def _says_something(word: str) -> bool:
    return len(word) > 2 and not word.isdigit() and not SMALL_WORDS.fullmatch(word)


def _stem(word: str) -> str:
    """A word without plural ending, in one of the two English spellings."""
    return word.rstrip("s").replace("z", "s")


def _abbreviates(name: str, words: Sequence[str]) -> bool:
    """Whether `name` takes letters of each word in order, such as vit for vision transformer."""
    at = iter("".join(words))
    return all(letter in at for letter in name) and all(word[0] in name for word in words)


def _tokens(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", folded(text))


def _words(text: str) -> set[str]:
    return {word for word in _tokens(text) if len(word) > 3}


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+", _YEAR.sub(" ", text))


def _outside(text: str) -> str:
    """The words outside brackets."""
    return re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text).split("#")[0]


def _bare(text: str) -> str:
    """The words of a line of Markdown, without links and emphasis."""
    words = re.sub(r"[*`~]+|(?<!\w)_+|_+(?!\w)|<[^<>]*>", "", without_links(text))
    return " ".join(words.split())
