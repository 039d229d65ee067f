"""Exercises: write equations 3 and 4, and their backward pass."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_vectors(draw: Draw) -> Iterator[Try]:
    yield Try("one vector", draw(3), draw(3), draw(3))
    yield Try("3 vectors", draw(3, 4), draw(4), draw(4))
    yield Try("two batch axes", draw(2, 3, 5), draw(5), draw(5))
    yield Try("eps 0.5", draw(2, 4), draw(4), draw(4), eps=0.5)
    yield Try("equal numbers", 0 * draw(2, 3) + 2, draw(3), draw(3))


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="Apply equation 3 over the last dimension, then the gain and the bias.",
        hints=(
            "Compute each vector's mean and variance over its features. With keepdim=True they broadcast.",
            "The variance divides the sum of squares by n, not n - 1. Add eps to it under the root.",
        ),
        tries=of_vectors,
    ),
    Exercise(
        name="backward",
        of="model._LayerNorm.backward",
        task=(
            "Return the gradients of x, weight and bias, and None for eps. ctx.saved_tensors holds x, "
            "weight, bias, and the vectors' mean and 1/σ."
        ),
        hints=(
            "For bias, sum the gradient over all vectors. For weight, first multiply it by the normalised x.",
            (
                "Let g be gradient · weight and n the normalised x. The gradient of x is (g - mean(g) - "
                "n · mean(g · n)) / σ."
            ),
        ),
        tries=of_vectors,
        through="model.layer_norm",
    ),
)
