"""What to write oneself: the step with its correction."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

SETTINGS = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-3}


def of_steps(draw: Draw) -> Iterator[Try]:
    first = [draw(2)], [draw(2)], [draw(2) * 0], [draw(2) * 0]
    yield Try("the first step", *first, t=1, **SETTINGS)
    yield Try("the third step", *state(draw, (3,)), t=3, **SETTINGS)
    yield Try("two weights of other shapes", *state(draw, (2, 2), (3,)), t=2, **SETTINGS)
    yield Try("small gradients, large eps", *state(draw, (3,)), t=5, lr=0.3, betas=(0.5, 0.8), eps=0.5)
    yield Try("without the correction", *state(draw, (3,)), t=2, correct_bias=False, **SETTINGS)


def state(draw: Draw, *shapes: tuple[int, ...]) -> tuple[list[object], ...]:
    """Weights, gradients, first and second moments."""
    signed = tuple([draw(*shape) for shape in shapes] for _ in range(3))
    return *signed, [draw.between(0.1, 1, *shape) for shape in shapes]


EXERCISES = (
    Exercise(
        name="step",
        of="model.adam",
        task="Algorithm 1 in place: both moments, their correction, the step.",
        hints=(
            "m ← β₁ m + (1 - β₁) g and v ← β₂ v + (1 - β₂) g², in place, for each tensor of the lists.",
            (
                "m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ), unless correct_bias is False. The stored "
                "moments stay."
            ),
            "w ← w - lr · m̂ / (√v̂ + eps): eps is outside of the root.",
        ),
        tries=of_steps,
    ),
)
