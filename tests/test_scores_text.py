"""Edit distance, error rates and BLEU, compared with jiwer, sacrebleu and brute force."""

from __future__ import annotations

import random
from collections.abc import Sequence

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from readtrack.scores import bleu, edit_distance, error_rate

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "hat", "quietly"]


def sentences(count: int, longest: int, seed: int) -> list[str]:
    choose = random.Random(seed)
    return [" ".join(choose.choices(WORDS, k=choose.randint(1, longest))) for _ in range(count)]


def damaged(text: str, seed: int) -> str:
    """The text with some words omitted, changed and repeated."""
    choose = random.Random(seed)
    words: list[str] = []
    for word in text.split():
        fate = choose.random()
        if fate > 0.2:
            words.append(word if fate > 0.4 else choose.choice(WORDS))
        if fate > 0.9:
            words.append(word)
    return " ".join(words)


def reachable(text: str, steps: int, alphabet: str) -> set[str]:
    """All texts that at most `steps` single edits can produce."""
    if steps == 0:
        return {text}
    found = reachable(text, steps - 1, alphabet)
    edited = set(found)
    for known in found:
        for i in range(len(known) + 1):
            edited.add(known[:i] + known[i + 1 :])
            for letter in alphabet:
                edited |= {known[:i] + letter + known[i:], known[:i] + letter + known[i + 1 :]}
    return edited


@pytest.mark.parametrize("start", ["", "a", "ab", "aab", "abba"])
def test_edit_distance_is_the_fewest_single_edits(start: str) -> None:
    rings = [reachable(start, steps, "ab") for steps in range(3)]
    for steps, ring in enumerate(rings):
        nearer = rings[steps - 1] if steps else set()
        assert all(edit_distance(start, other) == steps for other in ring - nearer)


@given(st.text("ab", max_size=8), st.text("ab", max_size=8), st.text("ab", max_size=8))
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


@pytest.mark.parametrize("seed", range(5))
def test_error_rates_match_jiwers(seed: int) -> None:
    references = sentences(30, 12, seed)
    hypotheses = [damaged(text, seed * 100 + i) for i, text in enumerate(references)]
    words = error_rate([text.split() for text in references], [text.split() for text in hypotheses])
    assert words == pytest.approx(jiwer.wer(references, hypotheses))
    assert error_rate(references, hypotheses) == pytest.approx(jiwer.cer(references, hypotheses))
    assert 0.1 < words < 0.9


def test_error_rate_of_ids_is_over_the_whole_corpus() -> None:
    assert error_rate([[1, 2, 3], [4]], [[1, 3], [5, 6]]) == (1 + 2) / 4
    assert error_rate([[], [7]], [[1], [7]]) == 1.0  # no reference word, one hypothesis word
    assert error_rate([[1]], [[2, 3, 4]]) == 3.0
    assert edit_distance((0, 1), [0, 1]) == 0


def test_error_rates_without_items_are_refused() -> None:
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        error_rate(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="empty"):
        error_rate(["", []], ["a", "b"])


def theirs(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], smooth: bool, order: int = 4
) -> float:
    """sacrebleu's score, which takes the k-th reference of every sentence as one list."""
    most = max(map(len, references))
    streams = [[rights[k] if k < len(rights) else None for rights in references] for k in range(most)]
    metric = BLEU(
        tokenize="none", smooth_method="exp" if smooth else "none", max_ngram_order=order, force=True
    )
    return metric.corpus_score(hypotheses, streams).score


def ours(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], smooth: bool, order: int = 4
) -> float:
    rights = [[text.split() for text in texts] for texts in references]
    return bleu(rights, [text.split() for text in hypotheses], smooth=smooth, order=order)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("longest", [3, 6, 20])
@pytest.mark.parametrize("seed", range(3))
def test_bleu_matches_sacrebleus(seed: int, longest: int, order: int, smooth: bool) -> None:
    choose = random.Random(seed)
    truth = sentences(12, longest, seed)
    hypotheses = [damaged(text, seed * 100 + i) for i, text in enumerate(truth)]
    references = [
        [damaged(text, seed * 100 + 50 * k + i + 7) or "the" for k in range(choose.randint(1, 3))]
        for i, text in enumerate(truth)
    ]
    expected = theirs(references, hypotheses, smooth, order)
    assert ours(references, hypotheses, smooth, order) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    ("references", "hypotheses"),
    [
        ([["the cat sat on the mat"]], ["the cat sat on the mat"]),
        ([["the cat sat on the mat"]], ["the the the the the the the"]),  # counts are clipped
        ([["the cat sat on the mat"]], ["the cat sat"]),  # too short for a 4-gram
        ([["the cat sat on the mat"]], ["a dog ran"]),
        ([["the cat sat on the mat"]], [""]),
        ([["a b c d e f", "a b c d"]], ["a b c d e"]),  # both lengths differ by one; the shorter counts
        ([["a b c d e f g h"]], ["a b c d e"]),
    ],
)
def test_bleu_at_its_edges_matches_sacrebleus(
    references: list[list[str]], hypotheses: list[str], smooth: bool
) -> None:
    assert ours(references, hypotheses, smooth) == pytest.approx(theirs(references, hypotheses, smooth))


def test_bleu_of_ids_and_of_nothing() -> None:
    assert bleu([[[1, 2, 3, 4, 5]]], [[1, 2, 3, 4, 5]]) == pytest.approx(100)
    with pytest.raises(ValueError, match="1 lists of references and 2 hypotheses"):
        bleu([[[1]]], [[1], [2]])
    with pytest.raises(ValueError, match="no reference"):
        bleu([[]], [[1]])
