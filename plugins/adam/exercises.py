"""Exercise: write one Adam step with bias correction."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

SETTINGS = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-3}


def of_steps(draw: Draw) -> Iterator[Try]:
    yield Try("the first step", draw(2), draw(2), draw(2) * 0, draw(2) * 0, t=1, **SETTINGS)
    yield Try("the third step", *state(draw, 3), t=3, **SETTINGS)
    yield Try("small gradients, large eps", *state(draw, 3), t=5, lr=0.3, betas=(0.5, 0.8), eps=0.5)


def state(draw: Draw, count: int) -> tuple[object, ...]:
    """Weights, gradients, and first and second moments."""
    return draw(count), draw(count), draw(count), draw.between(0.1, 1, count)


EXERCISES = (
    Exercise(
        name="step",
        of="model.Adam.update",
        task="Write algorithm 1 in place: update both moments, correct their bias, and take the step.",
        hints=(
            "m ← β₁ m + (1 - β₁) g and v ← β₂ v + (1 - β₂) g², in place.",
            "m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ). Do not write them into the stored moments.",
            "w ← w - lr · m̂ / (√v̂ + eps): eps is added outside the root.",
        ),
        tries=of_steps,
    ),
)
