"""Metrics for text: edit distance, error rate, BLEU.

A text is a sequence of hashable items: words, characters, ids.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def edit_distance(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> int:
    """The fewest substitutions, deletions and insertions that turn one into the other (Levenshtein 1966)."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            change = diagonal + (wanted != found)
            diagonal = row[j]
            row[j] = min(change, diagonal + 1, row[j - 1] + 1)
    return row[-1]


def error_rate(references: Sequence[Sequence[Hashable]], hypotheses: Sequence[Sequence[Hashable]]) -> float:
    """The sum of the edit distances of all pairs, divided by the total length of the references. It may
    exceed 1.

    Raises ValueError for lists of different lengths, and if all references are empty.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses")
    length = sum(len(reference) for reference in references)
    if length == 0:
        raise ValueError("the references are empty, so there is no error rate")
    return sum(map(edit_distance, references, hypotheses)) / length


def bleu(
    references: Sequence[Sequence[Sequence[Hashable]]],
    hypotheses: Sequence[Sequence[Hashable]],
    *,
    order: int = 4,
    smooth: bool = False,
) -> float:
    """BLEU of a corpus, 0 to 100 (Papineni et al. 2002, doi 10.3115/1073083.1073135, section 2).

    `references[i]` are one or more references for `hypotheses[i]`. BLEU is 100 x brevity penalty x geometric
    mean of the precisions of 1- to `order`-grams. The count of an n-gram is clipped to its largest count in a
    reference. The brevity penalty uses the reference closest in length, the shorter one of two. An order
    without a match makes the score 0; with `smooth`, the k-th such order counts as 2^-k matches, as in NIST's
    script. Raises ValueError for lists of different lengths and for a hypothesis without references.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} lists of references and {len(hypotheses)} hypotheses")
    if not all(references):
        raise ValueError("a hypothesis has no reference")
    length = sum(len(hypothesis) for hypothesis in hypotheses)
    wanted = sum(
        min((abs(len(right) - len(said)), len(right)) for right in rights)[1]
        for rights, said in zip(references, hypotheses, strict=True)
    )
    logs, unmatched = 0.0, 0
    for n in range(1, order + 1):
        matches = total = 0
        for rights, said in zip(references, hypotheses, strict=True):
            grams = _grams(said, n)
            most: Counter[tuple[Hashable, ...]] = Counter()
            for right in rights:
                most |= _grams(right, n)
            matches += (grams & most).total()
            total += grams.total()
        if total == 0 or (matches == 0 and (n == 1 or not smooth)):
            return 0.0
        unmatched += matches == 0
        logs += math.log((matches or 2.0**-unmatched) / total)
    brevity = min(0.0, 1 - wanted / length)
    return 100 * math.exp(brevity + logs / order)


def _grams(text: Sequence[Hashable], n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
