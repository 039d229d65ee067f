"""Which row of the list a name in the journal means, after rows were reworded or moved.

A row without papers goes by `row:<key>`, and the key is made from its text. So that a corrected word does not
cost the row its state and its note, the journal also keeps the row's wording and place, and here names and
rows are brought together. Unsure matches are left alone: rows of one wording never swap their states.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from readtrack.reading_list.catalog import Catalog, Note, Row
from readtrack.text import one_line

PREFIX = "row:"
_ALIKE = 0.75  # how alike two wordings must be to be one row's
_SURE = 0.1  # and by how much more than any other two


class About(NamedTuple):
    """A row as the journal keeps it: its text, where it stands ("Section / row above it"; "Section (2 of 2)"
    where there are two of this text), and whether no other row of the list has the text.
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

    of       the subject of each row without papers, to its name; rows the row's About
    orphans  names of the journal that belong to no row
    """

    of: dict[str, str]
    rows: dict[str, About]
    orphans: list[str]


def names(catalog: Catalog, said: Mapping[str, About | None]) -> Names:
    """Bring rows and names together. `said` has every name with what is known about its row."""
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
    """Where the journal says no more, as it did not at first, and for notes alone."""
    return [(subject, subject) for subject in rows if subject in said and said[subject] is None]


def _moved(rows: Mapping[str, About], said: Mapping[str, About | None]) -> Matches:
    """The same words at another place, where they mean and meant one row only."""
    once = {row.words: subject for subject, row in rows.items() if row.alone}
    return [
        (once.pop(about.words), name)
        for name, about in said.items()
        if about is not None and about.alone and about.words in once
    ]


def _reworded(rows: Mapping[str, About], said: Mapping[str, About | None]) -> Matches:
    """The most alike first, as long as nothing else is nearly as alike."""
    from difflib import SequenceMatcher

    scores: list[tuple[float, str, str]] = []
    for name, about in said.items():
        before = about.words if about else name.removeprefix(PREFIX).replace("-", " ")
        for subject, row in rows.items():
            if row.alone and (about is None or about.alone):
                # A name without a wording is one that was cut.
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
