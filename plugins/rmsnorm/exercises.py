"""Exercises: RMSNorm, and its backward pass."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_vectors(draw: Draw) -> Iterator[Try]:
    yield Try("one vector", draw(3), draw(3))
    yield Try("3 vectors", draw(3, 4), draw(4))
    yield Try("two batch axes", draw(2, 3, 5), draw(5))
    yield Try("eps 0.5", draw(2, 4), draw(4), eps=0.5)
    yield Try("the first half of the features", draw(2, 4), draw(4), share=0.5)
    yield Try("a share that is rounded up", draw(2, 5), draw(5), share=0.3)


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="Divide x by its root mean square and multiply by a gain. If `share` < 1, use only the first "
        "features for the mean.",
        hints=(
            "Take the mean of the squares over the last dimension. Nothing is subtracted.",
            "Add eps to the mean square, inside the root. Round the number of features up.",
        ),
        tries=of_vectors,
    ),
    Exercise(
        name="backward",
        of="model._RMSNorm.backward",
        task=(
            "Return the gradients of x and weight, and None for eps and share. ctx.saved_tensors holds x, "
            "weight, and each vector's scale 1/RMS. share is in ctx.share."
        ),
        hints=(
            "The gradient of the weight is gradient · x · scale, summed over all vectors.",
            (
                "The gradient of x is gradient · weight · scale. For the features in the mean square, "
                "subtract a term through the scale."
            ),
            (
                "This term is x · scale³ · sum(gradient · weight · x) / n, where n is the number of these "
                "features."
            ),
        ),
        tries=of_vectors,
        through="model.rms_norm",
    ),
)
