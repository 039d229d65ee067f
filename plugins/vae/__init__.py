"""Variational autoencoder: an encoder that guesses the posterior, trained through the noise it draws.

Kingma and Welling 2013, "Auto-Encoding Variational Bayes", arXiv 1312.6114.

The problem. A model with hidden causes, p(z) p(x|z), explains x by a posterior p(z|x) that cannot be
computed when p(x|z) is a network. A bound of the likelihood asks for an average over guesses of z only, but
the guesses depend on the parameters to be trained, and the gradient that takes this into account by the
logarithm of the guess's density is too noisy to be of use (section 2.2).

The idea. An encoder gives the guess, q(z|x), a Gaussian. Write its sample as mean + scale * noise: the noise
depends on nothing, so the gradient goes through the sample like through any other layer. One objective trains
encoder and decoder together; the part that compares the guess with the prior needs no sample at all.

This folder. `model` has the reparameterised sample, the divergence of appendix B, equation 10, and the
networks of appendix C with a Bernoulli decoder; wake-sleep, the predecessor; both gradients. `experiment`
compares training by the bound with wake-sleep, by the bound and by the likelihood, beside a mixture of
Bernoullis, and draws digits that nobody wrote. `gradients` compares the variance of both gradients.

Dimensions: batch, pixels (of an image in a row), hidden, latent, draws (samples for each image).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import BETTER, LIKELIHOOD, experiment
from .gradients import NOISE, SAME_MEAN
from .model import VAE, divergence, log_bernoulli, log_likelihood, log_normal, sample, wake_sleep


@hookimpl
def implementation() -> type[nn.Module]:
    return VAE
