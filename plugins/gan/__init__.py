"""Generative adversarial networks: train a generator against a classifier of real and generated samples.

Goodfellow et al. 2014, "Generative Adversarial Networks", arXiv 1406.2661.

The problem. A network that maps noise to samples has an intractable density, so it cannot be trained by
maximum likelihood. Earlier generative models used bounds or Markov chains instead.

The idea. Train a second network, the discriminator D, to estimate the probability that a sample is data. D
learns to be right, and the generator G learns to make D wrong. The optimal discriminator is D = p / (p + q)
for the data's density p and the samples' q. Against it G minimises the Jensen-Shannon divergence of the two,
and the equilibrium is p = q, where D can only guess (section 4). In practice G maximises log D(G(z)) instead
of minimising log(1 - D(G(z))), because the latter is flat while D rejects every sample (section 3).

This folder. `model` has both networks, the losses of both players, the optimal discriminator, and the Parzen
windows of table 1. `experiment` compares a trained discriminator with p / (p + q), trains GANs on
one-dimensional data (figure 1) and on digits, with each of the generator's losses, measures both losses'
gradients during training, and reports Parzen estimates.

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
