"""Exercises: write the mixture, its density, and the window over the text."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Mixture


def of_outputs(draw: Draw) -> Iterator[Try]:
    yield Try("one component", Mixture, draw(1, 7))
    yield Try("2 components", Mixture, draw(2, 3, 13))
    yield Try("a bias of 0.5", Mixture, draw(2, 13), bias=0.5)


def of_points(draw: Draw) -> Iterator[Try]:
    yield Try("one component", Mixture.of(draw(1, 7)), ends(draw, 1))
    yield Try("2 components", Mixture.of(draw(2, 13)), ends(draw, 2))
    yield Try("batched", Mixture.of(draw(2, 3, 19)), ends(draw, 2, 3))


def ends(draw: Draw, *shape: int) -> object:
    points = draw(*shape, 3)
    points[..., 2] = draw.mask(*shape)
    return points


def of_windows(draw: Draw) -> Iterator[Try]:
    yield Try("one Gaussian", draw(1, 3), draw.between(0, 2, 1, 1), 3)
    yield Try("2 Gaussians", draw(2, 6), draw.between(0, 3, 2, 2), 4)


EXERCISES = (
    Exercise(
        name="mixture",
        of="model.Mixture.of",
        task="Equations 17 to 22: split the last layer's outputs into the mixture's parameters and the "
        "logit of the stroke's end.",
        hints=(
            (
                "Split the outputs into parts of sizes (components, 2 · components, 2 · components, "
                "components, 1). The first argument is the class itself."
            ),
            (
                "log_pi is the log_softmax of pi · (1 + bias). Subtract the bias from log_sigma. rho is "
                "0.999 times the tanh of its output."
            ),
        ),
        tries=of_outputs,
    ),
    Exercise(
        name="density",
        of="model.Mixture.log_density",
        task="Equations 23 to 26: compute the log-density of a point and of whether its stroke ends there.",
        hints=(
            "Z is z₁² + z₂² - 2 ρ z₁ z₂ with z = (x - μ) / σ; the exponent is -Z / (2 (1 - ρ²)).",
            "The normalisation is 1 / (2π σ₁ σ₂ √(1 - ρ²)). Sum the components with logsumexp.",
            "The end is a Bernoulli variable with this logit; add its log-probability.",
        ),
        tries=of_points,
    ),
    Exercise(
        name="window",
        of="model.window_weights",
        task="Equations 46 to 51: compute the weight of each letter, and the new positions of the window.",
        hints=(
            "Apply exp to all three parts of the outputs, and add the third to kappa.",
            "The weight of letter u is Σ α exp(-β (κ - u)²), with the new kappa.",
        ),
        tries=of_windows,
    ),
)
