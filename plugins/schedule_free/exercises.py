"""Exercises: three sequences stored in two tensors, and AdamW's step without momentum."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

SETTINGS = {"lr": 0.1, "beta": 0.9, "beta2": 0.99, "eps": 1e-3, "warmup": 0}


def of_sequences(draw: Draw) -> Iterator[Try]:
    yield Try("the first step", draw(2), draw(2), draw(2), lr=0.1, beta=0.9, c=1.0)
    yield Try("a later step", draw(3), draw(3), draw(3), lr=0.1, beta=0.9, c=0.25)
    yield Try("another beta", draw(3), draw(3), draw(3), lr=0.5, beta=0.5, c=0.5)


def of_steps(draw: Draw) -> Iterator[Try]:
    yield Try("the first step", *state(draw, 2), t=1, c=1.0, weight_decay=0.0, **SETTINGS)
    yield Try("a later step", *state(draw, 3), t=4, c=0.25, weight_decay=0.0, **SETTINGS)
    yield Try("with weight decay", *state(draw, 3), t=3, c=0.5, weight_decay=0.2, **SETTINGS)


def state(draw: Draw, count: int) -> tuple[object, ...]:
    """y, gradients, z, and mean squares."""
    return draw(count), draw(count), draw(count), draw.between(0.1, 1, count)


EXERCISES = (
    Exercise(
        name="sequences",
        of="model.schedule_free",
        task="Apply equations 3 to 5 to y and z in place, without storing x.",
        hints=(
            "x follows from y = (1 - β) z + β x. Insert it into x' = (1 - c) x + c z'.",
            "y ← (1 - c) y + c z - lr · (1 - β (1 - c)) · direction, with the old z.",
            "z ← z - lr · direction.",
        ),
        tries=of_sequences,
    ),
    Exercise(
        name="AdamW step",
        of="model.ScheduleFreeAdamW.update",
        task="In place, update the mean square, then move y and z along a direction that includes weight "
        "decay at y.",
        hints=(
            "v ← beta2 · v + (1 - beta2) · g², and v̂ = v / (1 - beta2ᵗ).",
            "The direction is g / (√v̂ + eps) + weight_decay · y. There is no first moment.",
        ),
        tries=of_steps,
    ),
)
