"""Exercises: write maxout, the losses of both players, the value of the game, and Parzen windows."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Maxout


def of_units(draw: Draw) -> Iterator[Try]:
    yield Try("one unit of 2 pieces", Maxout(2, 1, 2), draw(1, 2))
    yield Try("3 units of 2 pieces", Maxout(3, 3, 2), draw(2, 3))


def of_logits(draw: Draw) -> Iterator[Try]:
    yield Try("one of each", draw(1), draw(1))
    yield Try("3 of each", draw(3), draw(3))
    yield Try("a confident discriminator", 200 + draw(2), draw(2) - 200)
    yield Try("a discriminator that is fooled", draw(2) - 200, 200 + draw(2))


def of_fakes(draw: Draw) -> Iterator[Try]:
    yield Try("one sample", draw(1))
    yield Try("3 samples", draw(3))
    yield Try("a confident discriminator", draw(3) - 200)


def of_densities(draw: Draw) -> Iterator[Try]:
    p, q = draw.between(0.1, 1, 4), draw.between(0.1, 1, 4)
    yield Try("two densities", p / p.sum() * 2, q / q.sum() * 2, 0.5)
    yield Try("equal densities", p / p.sum(), p / p.sum(), 1.0)
    apart = 0 * p
    apart[:2] = 0.5
    yield Try("no point in common", apart, apart.flip(0), 1.0)


def of_samples(draw: Draw) -> Iterator[Try]:
    yield Try("one sample", draw(1, 2), draw(2, 2), 0.5)
    yield Try("3 samples", draw(3, 2), draw(2, 2), 0.7)
    yield Try("a point far away", draw(2, 3), 100 + draw(1, 3), 0.2)


EXERCISES = (
    Exercise(
        name="maxout",
        of="model.Maxout.forward",
        task="Compute maxout: each output is the maximum of its linear pieces.",
        hints=(
            "The pieces of one output are next to each other in the linear layer's outputs.",
            "Unflatten the last dimension into (outputs, pieces), then take amax over the pieces.",
        ),
        tries=of_units,
    ),
    Exercise(
        name="discriminator",
        of="model.discriminator_loss",
        task="Compute algorithm 1's discriminator loss, from the logits of real and generated samples.",
        hints=(
            "The loss is minus the mean of log D(x) + log(1 - D(G(z))), where D is the sigmoid of a logit.",
            "-log σ(a) is softplus(-a), and -log(1 - σ(a)) is softplus(a). The softplus does not overflow.",
        ),
        tries=of_logits,
    ),
    Exercise(
        name="non-saturating",
        of="model.non_saturating_loss",
        task="Compute section 3's generator loss, whose gradient does not vanish if the discriminator is "
        "confident.",
        hints=(
            "The generator maximises log D(G(z)) instead of minimising log(1 - D(G(z))).",
            "In terms of logits the loss is a softplus, as in the discriminator's loss.",
        ),
        tries=of_fakes,
    ),
    Exercise(
        name="value of the game",
        of="model.value",
        task="Compute the value of the game against the optimal discriminator, for two densities on a grid.",
        hints=(
            "Integrate p log(p / m) and q log(q / m) with m = (p + q) / 2, then subtract log 4.",
            "A density of 0 contributes 0, so use torch.special.xlogy.",
        ),
        tries=of_densities,
        gradients=False,
    ),
    Exercise(
        name="Parzen windows",
        of="model.parzen",
        task="Compute, at each x, the log-density of a uniform mixture of Gaussians centred on the samples.",
        hints=(
            "Use logsumexp over the samples, minus the log of their number, for the log of the mean.",
            "The exponent is -|x - sample|² / (2 width²), and the constant is pixels / 2 · log(2π width²).",
        ),
        tries=of_samples,
        half=False,
    ),
)
