"""Generative adversarial networks: train a generator against a classifier of real and generated samples.

Goodfellow et al. 2014, "Generative Adversarial Networks", arXiv 1406.2661.

The problem. A network that maps noise to samples has an intractable density, so it cannot be trained by
maximum likelihood. Earlier generative models used bounds or Markov chains instead.

The idea. Train a second network, the discriminator D, to estimate the probability that a sample is data. At
the same time, train the generator G to make D classify generated samples as data. For a data density p and a
sample density q, the optimal discriminator is D = p / (p + q). Against this D, G minimises the Jensen-Shannon
divergence between p and q. At the equilibrium p = q, and D can only guess (section 4). In practice G
maximises log D(G(z)) instead of minimising log(1 - D(G(z))), because log(1 - D(G(z))) is flat while D rejects
every sample (section 3).

This folder. `model` has both networks, the losses of both players, the optimal discriminator, and the Parzen
windows of table 1. `experiment` compares a trained discriminator with p / (p + q), and trains GANs on
one-dimensional data (figure 1). It also trains GANs on digits with each of the generator's losses, measures
the gradients of both losses during training, and reports Parzen estimates.

Dimensions: batch, pixels (of a flattened image), hidden, latent, pieces (of a maxout unit).
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
