"""Exercises: build the bilinear filter, and upsample logits with it."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_factors(draw: Draw) -> Iterator[Try]:
    for factor in (2, 3, 8):
        yield Try(f"factor {factor}", factor)


def of_scores(draw: Draw) -> Iterator[Try]:
    yield Try("factor 1", draw(1, 2, 2, 3), 1)
    yield Try("factor 2", draw(1, 1, 3, 2), 2)
    yield Try("an odd factor, two classes", draw(2, 2, 3, 4), 3)


EXERCISES = (
    Exercise(
        name="bilinear filter",
        of="model.bilinear",
        task="Build the filter with which a transposed convolution of stride `factor` is a bilinear "
        "interpolation.",
        hints=(
            "The filter's size is 2 · factor - factor mod 2.",
            "In each direction the weight falls linearly with the distance: 1 - distance / factor.",
            "The filter is the outer product of the weights in both directions.",
        ),
        tries=of_factors,
    ),
    Exercise(
        name="upsampling",
        of="model.upsample",
        task="Upsample the scores of each class with a transposed convolution.",
        hints=(
            "Each class is a group with the same filter.",
            "The padding is (size - factor) / 2.",
        ),
        tries=of_scores,
    ),
)
