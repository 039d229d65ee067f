"""Generative adversarial networks: a generator taught by a judge that learns to tell its samples from data.

Goodfellow et al. 2014, "Generative Adversarial Networks", arXiv 1406.2661.

The problem. A network that turns noise into samples has a density that nobody can compute, so it cannot be
trained by likelihood. The generative models of the day took bounds or Markov chains instead.

The idea. A second network, the discriminator D, says how likely a sample is to be data. D learns to be right,
the generator G learns to make it wrong. Where D is at its best, D = p / (p + q) for the data's density p and
the samples' q, G lowers the Jensen-Shannon divergence of the two, and the game ends where they are equal and
D can only guess (section 4). In practice G raises log D(G(z)) instead of lowering log(1 - D(G(z))): while D
rejects every sample, the latter is flat (section 3).

This folder. `model` has the two networks, the losses of both players, the optimal discriminator, and the
Parzen windows of table 1. `experiment` holds a trained discriminator against p / (p + q), plays the game for
one number (figure 1) and for digits, once with each of the generator's losses, measures the gradients of both
losses as it goes on, and shows what Parzen windows say.

Dimensions: batch, pixels (of an image in a row), hidden, latent, pieces (of a maxout unit).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import OPTIMAL, SATURATES, experiment
from .model import (
    Game,
    Generator,
    Maxout,
    discriminator_loss,
    minimax_loss,
    non_saturating_loss,
    optimal_discriminator,
    parzen,
    value,
)


@hookimpl
def implementation() -> type[nn.Module]:
    return Game
