"""What to write oneself: the decay, and where in the step it stands."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

SETTINGS = {"lr": 0.1, "weight_decay": 0.2, "t": 3, "betas": (0.9, 0.99), "eps": 1e-3}


def of_decay(draw: Draw) -> Iterator[Try]:
    yield Try("a rate of 0.1", [draw(3)], rate=0.1)
    yield Try("two weights", [draw(2), draw(2, 2)], rate=0.5)
    yield Try("no decay", [draw(2)], rate=0.0)


def of_steps(draw: Draw) -> Iterator[Try]:
    yield Try("one weight", *state(draw, (3,)), **SETTINGS)
    yield Try("two weights", *state(draw, (2, 2), (3,)), **SETTINGS)
    yield Try("no gradient", [draw(3)], [0 * draw(3)], [0 * draw(3)], [0 * draw(3)], **SETTINGS)
    yield Try("no decay", *state(draw, (3,)), **SETTINGS | {"weight_decay": 0.0})


def state(draw: Draw, *shapes: tuple[int, ...]) -> tuple[list[object], ...]:
    """Weights, gradients, first and second moments."""
    signed = tuple([draw(*shape) for shape in shapes] for _ in range(3))
    return *signed, [draw.between(0.1, 1, *shape) for shape in shapes]


EXERCISES = (
    Exercise(
        name="decay",
        of="model.decay",
        task="Shrink each weight by a rate, in place.",
        hints=("w ← (1 - rate) w.",),
        tries=of_decay,
    ),
    Exercise(
        name="step",
        of="model.adamw",
        task="Algorithm 2 in place: the decay is no part of the gradient, and no moment sees it.",
        hints=(
            "The decay multiplies the weights by 1 - lr · weight_decay; adam does the rest.",
            "Decay first: the step of adam does not depend on the weights, but what is shrunk does.",
        ),
        tries=of_steps,
    ),
)
