"""Exercises: write the reparameterised sample, the KL divergence, two densities, and the bound."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import VAE


def of_samples(draw: Draw) -> Iterator[Try]:
    yield Try("one latent variable", draw(1, 1), draw(1, 1), draw(1, 1))
    yield Try("a batch", draw(3, 2), draw(3, 2), draw(3, 2))
    yield Try("4 draws for each row", draw(2, 3), draw(2, 3), draw(4, 2, 3))


def of_guesses(draw: Draw) -> Iterator[Try]:
    yield Try("the prior itself", 0 * draw(2, 2), 0 * draw(2, 2))
    yield Try("one latent variable", draw(2, 1), draw(2, 1))
    yield Try("3 latent variables", draw(2, 3), draw(2, 3))


def of_pixels(draw: Draw) -> Iterator[Try]:
    yield Try("one pixel", draw(2, 1), draw.below(2, 2, 1).double())
    yield Try("grey pixels", draw(2, 3), draw.between(0, 1, 2, 3))
    yield Try("sure of it", 300 * draw(2, 3), draw.below(2, 2, 3).double())
    yield Try("2 draws for each row", draw(2, 3, 4), draw.between(0, 1, 3, 4))


def of_densities(draw: Draw) -> Iterator[Try]:
    yield Try("one latent variable", draw(2, 1), draw(2, 1), draw(2, 1))
    yield Try("2 draws for each row", draw(2, 3, 2), draw(3, 2), draw(3, 2))
    yield Try("one Gaussian for all rows", draw(3, 2), draw(1, 2), draw(1, 2))


def of_bounds(draw: Draw) -> Iterator[Try]:
    yield Try("one image", VAE(2, 3, 1), draw.below(2, 1, 2).double(), draw(1, 1))
    yield Try("3 images", VAE(4, 3, 2), draw.between(0, 1, 3, 4), draw(3, 2))


EXERCISES = (
    Exercise(
        name="sample",
        of="model.sample",
        task="Apply the reparameterisation trick: compute a sample from mean, log-variance and noise.",
        hints=(
            "The randomness is in `noise`, which needs no gradient. Apply mean and scale to it.",
            "The standard deviation is exp(log_variance / 2).",
        ),
        tries=of_samples,
    ),
    Exercise(
        name="divergence",
        of="model.divergence",
        task="Compute the KL divergence of the posterior from the prior, in nats, without sampling.",
        hints=(
            "The components are independent, so add up their contributions.",
            "Each component contributes -(1 + log σ² - μ² - σ²) / 2.",
        ),
        tries=of_guesses,
    ),
    Exercise(
        name="log Bernoulli",
        of="model.log_bernoulli",
        task="Compute the log-probability of independent Bernoulli pixels from their logits.",
        hints=(
            "With p as the logit's sigmoid, x log p + (1 - x) log(1 - p) overflows, so simplify it first.",
            "The result is x · logit - log(1 + e^logit). F.softplus computes the second term.",
        ),
        tries=of_pixels,
    ),
    Exercise(
        name="log normal",
        of="model.log_normal",
        task="Compute the log-density of latents under a diagonal Gaussian.",
        hints=(
            "Each component contributes -(log 2π + log σ² + (z - μ)² / σ²) / 2.",
            "Add the log-densities of the components.",
        ),
        tries=of_densities,
    ),
    Exercise(
        name="bound",
        of="model.VAE.forward",
        task="Compute the lower bound on log p(x) for each image, with one sample of the latent.",
        hints=(
            "Encode, sample and decode. There is a function for each.",
            "The bound is the log-probability of the pixels minus the KL divergence.",
        ),
        tries=of_bounds,
    ),
)
