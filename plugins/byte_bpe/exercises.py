"""Exercises: one merge, the training loop, and how a word is cut."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from . import ByteBPE
from .training import train
from .words import ID


def of_words(draw: Draw) -> Iterator[Try]:
    yield Try("the pair stands once", [5, 1, 2, 7], (1, 2), 9)
    yield Try("nowhere", [2, 1, 3], (1, 2), 9)
    yield Try("at the end", [3, 1, 2], (1, 2), 9)
    yield Try("twice the same symbol, three times", [4, 4, 4], (4, 4), 9)
    yield Try("several times", draw.below(2, 20).tolist(), (0, 1), 9)
    yield Try("one symbol", [1], (1, 1), 9)


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one merge", "abab", 1)
    yield Try("as frequent: the smallest ids", "dc ba", 1)
    yield Try("a word that stands several times", "low low low lower newest", 4)
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
        task="A word with one new symbol wherever the pair stands.",
        hints=(
            "Go from left to right: a symbol that has been merged is in no further pair.",
            "Two symbols on after the pair, one symbol on after anything else; mind the last one.",
        ),
        tries=of_words,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="training",
        of="training.train_slowly",
        task="Algorithm 1: count all pairs, merge the most frequent one, again; of several the smallest ids.",
        hints=(
            "count_words gives each word once and how often it stands there: a pair counts as often.",
            "ID gives a byte's id, Vocabulary.add a pair's new one; replace merges it in every word.",
            "Stop before `merges` of them when no word has two symbols.",
        ),
        tries=of_texts,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="cut a word",
        of="encoding.ByteBPE.merge_slowly",
        task="The ids of a word: the merges of training, in the order in which they were found.",
        hints=(
            "self.ranks has a pair's place in that order, self.merged the id of the merge at a place.",
            "Of all neighbours in the word that have a merge do the earliest, everywhere, and again.",
        ),
        tries=of_cuts,
        gradients=False,
        half=False,
    ),
)
