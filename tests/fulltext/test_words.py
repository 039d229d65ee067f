"""Positions of words in a text, and misspelt words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readtrack.fulltext.words import is_near, spans, worded
from readtrack.text import folded

words = st.text("abcd", min_size=4, max_size=12)


def test_spans_refer_to_the_text_as_written() -> None:
    assert spans("Jürgen ﬁnds RÉ", ["jurgen", "finds", "re"]) == [(0, 6), (7, 11), (12, 14)]
    assert spans("aaa", ["a", "", "zz"]) == [(0, 1), (1, 2), (2, 3)]


def test_words_are_compared_without_case_accents_and_punctuation() -> None:
    assert worded("  Flash-Attention_2: für Ré!") == "flash attention 2 fur re"


@given(
    words, st.integers(0, 11), st.sampled_from("abcdx"), st.sampled_from(["wrong", "more", "missing", "swap"])
)
def test_one_slip_is_near(word: str, at: int, letter: str, slip: str) -> None:
    at %= len(word)
    typed = {
        "wrong": word[:at] + letter + word[at + 1 :],
        "more": word[:at] + letter + word[at:],
        "missing": word[:at] + word[at + 1 :],
        "swap": word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
    }[slip]
    assert len(typed) < 4 or is_near(typed, word)


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_text_breaks_it(text: str, word: str) -> None:
    for start, end in spans(text, [folded(word)]):
        assert 0 <= start < end <= len(text)
