"""Exercises: add decoupled weight decay to SGD and to Adam."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

SETTINGS = {"lr": 0.1, "weight_decay": 0.2, "t": 3, "betas": (0.9, 0.99), "eps": 1e-3}


def of_sgd(draw: Draw) -> Iterator[Try]:
    yield Try("a decay of 0.2", draw(2), draw(2), t=1, lr=0.1, weight_decay=0.2)
    yield Try("no gradient", draw(3), 0 * draw(3), t=2, lr=0.5, weight_decay=0.1)


def of_steps(draw: Draw) -> Iterator[Try]:
    yield Try("a decay of 0.2", *state(draw, 3), **SETTINGS)
    yield Try("no gradient", draw(3), 0 * draw(3), 0 * draw(3), 0 * draw(3), **SETTINGS)
    yield Try("no decay", *state(draw, 3), **SETTINGS | {"weight_decay": 0.0})
    yield Try("the first step", draw(2), draw(2), 0 * draw(2), 0 * draw(2), **SETTINGS | {"t": 1})


def state(draw: Draw, count: int) -> tuple[object, ...]:
    """Weights, gradients, and first and second moments."""
    return draw(count), draw(count), draw(count), draw.between(0.1, 1, count)


EXERCISES = (
    Exercise(
        name="SGD with decay",
        of="model.SGDW.update",
        task="Take a step of SGD in place that also shrinks the weights.",
        hints=("w ← w - lr · (g + weight_decay · w).",),
        tries=of_sgd,
    ),
    Exercise(
        name="step",
        of="model.AdamW.update",
        task="Write algorithm 2 in place. The decay is not part of the gradient, so neither moment contains "
        "it.",
        hints=(
            "Compute both moments and their correction from g alone, as in Adam.",
            "w ← w - lr · (m̂ / (√v̂ + eps) + weight_decay · w).",
        ),
        tries=of_steps,
    ),
)
