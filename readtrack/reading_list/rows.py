"""Match names in the journal to rows of the list, after rows were reworded or moved.

A row without papers is named `row:<key>`, and the key is derived from its text. The journal also stores the
row's wording and place, which are matched here, so correcting a word does not lose the row's state and note.
Uncertain matches are ignored: rows with the same wording never swap their states.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from readtrack.reading_list.catalog import Catalog, Note, Row
from readtrack.text import one_line

PREFIX = "row:"
_ALIKE = 0.75  # minimum similarity of two wordings of one row
_SURE = 0.1  # minimum lead over any other pair


class About(NamedTuple):
    """A row as stored in the journal.

    Its text, its place ("Section / row above it"; "Section (2 of 2)" if there are two with this text), and
    whether no other row of the list has the text.
    """

    text: str
    place: str
    alone: bool = True

    @property
    def words(self) -> str:
        """The text without case and punctuation."""
        return " ".join(re.findall(r"\w+", self.text.casefold()))


class Names(NamedTuple):
    """The names of rows in the journal and in the folder of notes.

    of       name by subject, for each row without papers
    rows     the row's About by subject
    orphans  names in the journal that match no row
    """

    of: dict[str, str]
    rows: dict[str, About]
    orphans: list[str]


def names(catalog: Catalog, said: Mapping[str, About | None]) -> Names:
    """Match rows and names. `said` maps every name to the stored facts about its row."""
    rows = dict(_rows(catalog))
    left = dict(said)
    found: dict[str, str] = {}
    for match in (_exactly, _by_key, _moved, _reworded):
        free = {subject: row for subject, row in rows.items() if subject not in found}
        for subject, name in match(free, left):
            found[subject] = name
            del left[name]
    taken = {*said, *found.values()}
    for subject in rows:
        if subject not in found:
            found[subject] = _unused(subject, taken)
            taken.add(found[subject])
    return Names(found, rows, sorted(left))


Matches = list[tuple[str, str]]


def _exactly(rows: Mapping[str, About], said: Mapping[str, About | None]) -> Matches:
    where = {(row.words, row.place): subject for subject, row in rows.items()}
    known = ((name, about) for name, about in said.items() if about is not None)
    keys = ((name, (about.words, about.place)) for name, about in known)
    return [(where.pop(key), name) for name, key in keys if key in where]


def _by_key(rows: Mapping[str, About], said: Mapping[str, About | None]) -> Matches:
    """Match by key if nothing else is stored: old entries, and rows that have only a note."""
    return [(subject, subject) for subject in rows if subject in said and said[subject] is None]


def _moved(rows: Mapping[str, About], said: Mapping[str, About | None]) -> Matches:
    """Match the same words at another place, if they identify a single row before and after."""
    once = {row.words: subject for subject, row in rows.items() if row.alone}
    return [
        (once.pop(about.words), name)
        for name, about in said.items()
        if about is not None and about.alone and about.words in once
    ]


def _reworded(rows: Mapping[str, About], said: Mapping[str, About | None]) -> Matches:
    """Match the most similar pairs first, but skip a pair if another one is nearly as similar."""
    from difflib import SequenceMatcher

    scores: list[tuple[float, str, str]] = []
    for name, about in said.items():
        before = about.words if about else name.removeprefix(PREFIX).replace("-", " ")
        for subject, row in rows.items():
            if row.alone and (about is None or about.alone):
                # A name without a wording is truncated.
                pair = SequenceMatcher(None, before, row.words if about else row.words[: len(before)], False)
                if pair.real_quick_ratio() > _ALIKE - _SURE < pair.quick_ratio():
                    scores.append((pair.ratio(), subject, name))
    found: Matches = []
    for score, subject, name in sorted(scores, reverse=True):
        rivals = [other for other, s, n in scores if (s == subject) != (n == name)]
        if score >= _ALIKE and score - max(rivals, default=0.0) >= _SURE:
            found.append((subject, name))
    return found


def _unused(subject: str, taken: set[str]) -> str:
    name, number = subject, 2
    while name in taken:
        name, number = f"{subject}-{number}", number + 1
    return name


def _rows(catalog: Catalog) -> Iterator[tuple[str, About]]:
    """Subject and About of every row without papers, in the list's order."""
    bare: list[tuple[str, About]] = []

    def collect(items: Iterable[Row | Note], place: str) -> None:
        for item in items:
            if isinstance(item, Row):
                if not item.papers:
                    bare.append((item.subject, About(one_line(item.text), one_line(place))))
                collect(item.rows, f"{place} / {item.text}")

    for section in catalog.sections:
        collect(section.rows, section.title)
    of_text = Counter(row.words for _, row in bare)
    here = Counter((row.words, row.place) for _, row in bare)
    number: Counter[tuple[str, str]] = Counter()
    for subject, row in bare:
        key = (row.words, row.place)
        number[key] += 1
        which = f" ({number[key]} of {here[key]})" if here[key] > 1 else ""
        yield subject, About(row.text, row.place + which, of_text[row.words] == 1)
