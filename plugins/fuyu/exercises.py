"""Exercises: embed an image as tokens, put images before texts, and compute an image's layout."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Fuyu


def model(newline: int | None = 3) -> Fuyu:
    return Fuyu(4, patch=2, channels=1, newline=newline, model=4, heads=1, layers=1, hidden=4)


def of_images(draw: Draw) -> Iterator[Try]:
    yield Try("one patch", model(), draw(1, 1, 2, 2))
    yield Try("2 rows of 3", model(), draw(2, 1, 4, 6))
    yield Try("without newlines", model(None), draw(2, 1, 4, 4))


def of_sequences(draw: Draw) -> Iterator[Try]:
    yield Try("images of one size", model(), draw(2, 2, 4), draw(2, 1, 2, 4))
    yield Try("images of two sizes", model(), draw(2, 2, 4), [draw(1, 2, 2), draw(1, 4, 2)])
    yield Try("no images", model(), draw(2, 3, 4), ())


def of_sizes(draw: Draw) -> Iterator[Try]:
    yield Try("whole patches", 60, 90)
    yield Try("padded patches", 61, 29)
    yield Try("patches of 16", 40, 100, patch=16)


EXERCISES = (
    Exercise(
        name="image tokens",
        of="model.Fuyu.image_tokens",
        task="Convert an image to the decoder's input vectors, with a newline after each row of patches.",
        hints=(
            "`patches` gives a grid. self.look turns each patch into a vector.",
            "If there is a newline id, append its embedding as one more column. Then flatten.",
        ),
        tries=of_images,
    ),
    Exercise(
        name="sequences",
        of="model.Fuyu.sequences",
        task="Join each image and its text, and return the positions at which the texts start.",
        hints=(
            "Images of one size form one batch. Without images, the texts start at 0.",
            "If images have several sizes, join each with its text, and pad at the end (pad_sequence).",
        ),
        tries=of_sequences,
    ),
    Exercise(
        name="layout",
        of="model.layout",
        task="Compute the number of rows, columns and tokens of an image.",
        hints=("Round up to whole patches. Each row ends with a newline.",),
        tries=of_sizes,
    ),
)
