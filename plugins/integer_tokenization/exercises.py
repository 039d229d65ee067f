"""Exercises: learn merges from numbers, and split an integer into tokens."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from ..byte_bpe import ByteBPE
from .cutting import merges_of_numbers


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one number", "1010", 1)
    yield Try("letters are left out", "ab ab ab 12 12", 3)
    yield Try("numbers that touch letters and signs", "x86, 3.14 and 1999-2000", 6)
    numbers = " or ".join(str(number) for number in draw.below(300, 30).tolist())
    yield Try("30 numbers", numbers, 10)


def of_integers(draw: Draw) -> Iterator[Try]:
    learned = ByteBPE(merges_of_numbers("1990 1991 1992 200 2000 100", 6))
    yield Try("one digit", learned, 7)
    yield Try("no merges", ByteBPE([]), 305)
    yield Try("a year", learned, 1997)
    for number in draw.below(3000, 3).tolist():
        yield Try("any number", learned, number)


EXERCISES = (
    Exercise(
        name="learn",
        of="cutting.merges_of_numbers",
        task="Learn byte-pair merges from only the numbers in a text, counting every occurrence.",
        hints=(
            "Find the runs of the digits 0 to 9, and train only on them.",
            ("Put each number on a separate line. Then no merge spans two numbers or begins with a space."),
        ),
        tries=of_texts,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="pieces",
        of="cutting.cut",
        task="Return the tokens of an integer at the beginning of a text, as strings.",
        hints=(
            "Encode its decimal digits, without a leading space.",
            "bpe.tokens maps an id to bytes. Decode these bytes.",
        ),
        tries=of_integers,
        gradients=False,
        half=False,
    ),
)
