"""Exercises: equations 3 and 4, and their gradient by hand."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_vectors(draw: Draw) -> Iterator[Try]:
    yield Try("one vector", draw(3), draw(3), draw(3))
    yield Try("3 vectors", draw(3, 4), draw(4), draw(4))
    yield Try("two batch axes", draw(2, 3, 5), draw(5), draw(5))
    yield Try("an eps of 0.5", draw(2, 4), draw(4), draw(4), eps=0.5)
    yield Try("equal numbers", 0 * draw(2, 3) + 2, draw(3), draw(3))


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="Equation 3 over the last dimension, then gain and bias.",
        hints=(
            "Mean and variance are taken over the features of each vector; keepdim=True lets them broadcast.",
            "The variance divides by n, not n - 1, and eps is added to it inside the root.",
        ),
        tries=of_vectors,
    ),
    Exercise(
        name="backward",
        of="model._LayerNorm.backward",
        task=(
            "The gradients of x, weight and bias; None for eps. ctx.saved_tensors is x, weight, bias, and "
            "the vectors' mean and 1/σ."
        ),
        hints=(
            "The bias gets the gradient summed over all vectors, the weight the same times the normalised x.",
            (
                "Let g = gradient · weight and n the normalised x: x gets rstd · (g - mean(g) - n · "
                "mean(g · n))."
            ),
        ),
        tries=of_vectors,
        through="model.layer_norm",
    ),
)
