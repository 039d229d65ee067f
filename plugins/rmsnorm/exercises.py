"""Exercises: the norm, and its gradient by hand."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_vectors(draw: Draw) -> Iterator[Try]:
    yield Try("one vector", draw(3), draw(3))
    yield Try("3 vectors", draw(3, 4), draw(4))
    yield Try("two batch axes", draw(2, 3, 5), draw(5))
    yield Try("an eps of 0.5", draw(2, 4), draw(4), eps=0.5)
    yield Try("the first half of the features", draw(2, 4), draw(4), share=0.5)
    yield Try("a share that does not come out even", draw(2, 5), draw(5), share=0.3)


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="x over its root mean square, times a gain; with share < 1 the first features stand for all.",
        hints=(
            "The mean is of squares, over the last dimension. Nothing is subtracted.",
            "eps is added to the mean square, inside the root. A share is rounded up.",
        ),
        tries=of_vectors,
    ),
    Exercise(
        name="backward",
        of="model._RMSNorm.backward",
        task=(
            "The gradients of x and weight; None for eps and share. ctx.saved_tensors is x, weight, and the "
            "vectors' scale 1/RMS; share is in ctx.share."
        ),
        hints=(
            "The weight gets gradient · x · scale, summed over all vectors.",
            (
                "x gets gradient · weight · scale, minus what goes through the scale, only where the "
                "scale looks."
            ),
            "That is x · scale³ · sum(gradient · weight · x) / n, with n the number of features seen.",
        ),
        tries=of_vectors,
        through="model.rms_norm",
    ),
)
