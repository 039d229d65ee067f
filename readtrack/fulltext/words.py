"""Words for comparison, without case, accents and punctuation; misspellings; positions in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from readtrack.text import folded

_SPACES = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isalnum()})
SHORTEST = 4  # minimum length of a word that may be misspelt


def worded(text: str) -> str:
    """The folded words of `text` with one space between them: "Flash-Attention!" is "flash attention"."""
    plain = folded(text)
    if plain.isascii():
        return " ".join(plain.translate(_SPACES).split())
    return re.sub(r"[\W_]+", " ", plain).strip()


def is_near(word: str, token: str) -> bool:
    """Whether `token`, or its beginning, is a misspelling of `word`.

    One letter may be wrong, added, missing, or swapped with its neighbour; two in words of eight letters or
    more.
    """
    limit = 2 if len(word) >= 8 else 1
    if len(word) < SHORTEST or len(token) < len(word) - limit:
        return False
    token = token[: len(word) + limit]
    before: list[int] = []
    row = list(range(len(token) + 1))
    for i, letter in enumerate(word):
        following = [i + 1]
        for j, other in enumerate(token):
            cost = min(row[j] + (letter != other), row[j + 1] + 1, following[j] + 1)
            if i and j and letter == token[j - 1] and word[i - 1] == other:
                cost = min(cost, before[j - 1] + 1)
            following.append(cost)
        before, row = row, following
        if min(row) > limit:
            return False
    return min(row) <= limit


def spans(text: str, words: Iterable[str]) -> list[tuple[int, int]]:
    """Spans of the folded `words` in the original `text`."""
    if text.isascii():
        flat = folded(text)
        places: Sequence[int] = range(len(text))
    else:
        pieces = [folded(character) for character in text]
        flat = "".join(pieces)
        places = [index for index, piece in enumerate(pieces) for _ in piece]
    found = []
    for word in words:
        at = flat.find(word) if word else -1
        while at >= 0:
            found.append((places[at], places[at + len(word) - 1] + 1))
            at = flat.find(word, at + len(word))
    return found
