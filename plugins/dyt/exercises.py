"""Exercises: write algorithm 1 and its backward pass."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_vectors(draw: Draw) -> Iterator[Try]:
    yield Try("one vector", draw(3), draw(1), draw(3), draw(3))
    yield Try("3 vectors", draw(3, 4), draw(1), draw(4), draw(4))
    yield Try("two batch axes", draw(2, 2, 3), draw(1), draw(3), draw(3))


EXERCISES = (
    Exercise(
        name="dynamic tanh",
        of="model.line_by_line",
        task="Write algorithm 1: apply a tanh with a learned slope, then a gain and a bias.",
        hints=("The slope multiplies x inside the tanh. The weight multiplies the tanh's result.",),
        tries=of_vectors,
    ),
    Exercise(
        name="backward",
        of="model._DynamicTanh.backward",
        task=(
            "Return the gradients of x, alpha, weight and bias. ctx.saved_tensors holds these four and "
            "squashed, the tanh of alpha · x."
        ),
        hints=(
            "The derivative of tanh is 1 - tanh², and squashed is the tanh.",
            (
                "Let inner = (1 - squashed²) · gradient · weight. The gradient of x is inner · alpha, and "
                "that of alpha is the sum of inner · x."
            ),
            (
                "The gradient of weight is gradient · squashed, and that of bias is gradient, each summed "
                "over all vectors. alpha has shape (1,)."
            ),
        ),
        tries=of_vectors,
        through="model.dynamic_tanh",
    ),
)
