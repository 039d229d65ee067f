"""Exercises: the formula, and the same as batch normalisation of one example."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_images(draw: Draw) -> Iterator[Try]:
    yield Try("one picture", draw(1, 2, 3), draw(2), draw(2), eps=1e-5)
    yield Try("two pictures", draw(2, 2, 2, 2), draw(2), draw(2), eps=1e-5)
    yield Try("an eps of 0.5", draw(2, 3, 4), draw(3), draw(3), eps=0.5)


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="Section 2: each channel over the positions of each picture by itself.",
        hints=(
            "Mean and variance are over dimensions 2 and up: neither over the batch nor over the channels.",
            "eps goes into the root; per_feature lets gain and bias broadcast.",
        ),
        tries=of_images,
    ),
    Exercise(
        name="through batch norm",
        of="model.instance_norm",
        task="The same with batch_norm: a batch of one example that has all pictures' channels.",
        hints=(
            "reshape (batch, features, ...) to (1, batch · features, ...).",
            "Gain and bias are repeated for each picture; batch_norm also returns mean and variance.",
        ),
        tries=of_images,
    ),
)
