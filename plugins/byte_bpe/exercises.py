"""Exercises: merge a pair, learn merges from words, and encode a word."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from . import ByteBPE
from .training import train
from .words import ID


def of_words(draw: Draw) -> Iterator[Try]:
    yield Try("the pair occurs once", [5, 1, 2, 7], (1, 2), 9)
    yield Try("nowhere", [2, 1, 3], (1, 2), 9)
    yield Try("at the end", [3, 1, 2], (1, 2), 9)
    yield Try("twice the same symbol, three times", [4, 4, 4], (4, 4), 9)
    yield Try("several times", draw.below(2, 20).tolist(), (0, 1), 9)
    yield Try("one symbol", [1], (1, 1), 9)


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one merge", "abab", 1)
    yield Try("a tie: the smallest ids", "dc ba", 1)
    yield Try("a word that occurs several times", "low low low lower newest", 4)
    yield Try("no pair is left", "aa", 5)
    letters = "".join("abc "[i] for i in draw.below(4, 60).tolist())
    yield Try("letters at random", letters, 8)


def of_cuts(draw: Draw) -> Iterator[Try]:
    merges = train("low low low lower newest newest widest", 12)
    yield Try("no merges", ByteBPE([]), b"low")
    yield Try("a word of the text", ByteBPE(merges), b"low")
    yield Try("a word of pieces", ByteBPE(merges), b"lowest")
    a, b, c = (ID[byte] for byte in b"abc")
    yield Try("the earlier merge is on the right", ByteBPE([(b, c), (a, b)]), b"abc")
    yield Try("one byte", ByteBPE(merges), b"w")
    letters = bytes(b"lowe"[i] for i in draw.below(4, 20).tolist())
    yield Try("letters at random", ByteBPE(train("lowe owel welo lo lo we", 8)), letters)


EXERCISES = (
    Exercise(
        name="merge",
        of="training.replace",
        task="Replace each occurrence of the pair in a word by one new symbol.",
        hints=(
            "Go from left to right. A symbol that has been merged belongs to no further pair.",
            "Advance by two symbols after a match and by one otherwise. Do not forget the last symbol.",
        ),
        tries=of_words,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="training",
        of="training.train_slowly",
        task="Write algorithm 1: count all pairs, merge the most frequent one, and repeat. In a tie, take "
        "the smallest ids.",
        hints=(
            "count_words gives each word once, with its count. Each pair in the word counts that many times.",
            (
                "ID maps a byte to its id, and Vocabulary.add maps a pair to its new id. replace merges the "
                "pair in a word."
            ),
            "Stop early if no word has two symbols left.",
        ),
        tries=of_texts,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="cut a word",
        of="encoding.ByteBPE.merge_slowly",
        task="Encode a word as ids: apply the merges of training in the order in which they were found.",
        hints=(
            (
                "self.ranks maps a pair to its position in that order. self.merged maps a position to the "
                "merge's id."
            ),
            (
                "Find the earliest merge among all neighbouring pairs, apply it everywhere in the word, and "
                "repeat."
            ),
        ),
        tries=of_cuts,
        gradients=False,
        half=False,
    ),
)
