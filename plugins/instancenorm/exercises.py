"""Exercises: write instance normalisation as a formula, and as batch normalisation of one example."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_images(draw: Draw) -> Iterator[Try]:
    yield Try("one image", draw(1, 2, 3), draw(2), draw(2), eps=1e-5)
    yield Try("two images", draw(2, 2, 2, 2), draw(2), draw(2), eps=1e-5)
    yield Try("eps 0.5", draw(2, 3, 4), draw(3), draw(3), eps=0.5)


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="Section 2: normalise each channel of each image over its positions.",
        hints=(
            "Compute the mean and the variance over dimensions 2 and up, not over the batch or the channels.",
            "Add eps to the variance under the root. per_feature makes the gain and the bias broadcast.",
        ),
        tries=of_images,
    ),
    Exercise(
        name="through batch norm",
        of="model.instance_norm",
        task="Write the same function with batch_norm, applied to one example that holds the channels of "
        "all images.",
        hints=(
            "Reshape (batch, features, ...) to (1, batch · features, ...).",
            "Repeat the gain and the bias for each image. batch_norm also returns the mean and the variance.",
        ),
        tries=of_images,
    ),
)
