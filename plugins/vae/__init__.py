"""Variational autoencoder: an encoder approximates the posterior and is trained through its samples.

Kingma and Welling 2013, "Auto-Encoding Variational Bayes", arXiv 1312.6114.

The problem. In a latent-variable model p(z) p(x|z), the posterior p(z|x) is intractable if p(x|z) is a neural
network. A lower bound on the likelihood needs only samples from an approximate posterior. But the
distribution of these samples depends on the parameters to be trained, and the score-function gradient, which
takes this into account, is too noisy to be useful (section 2.2).

The idea. An encoder computes the approximate posterior q(z|x), a Gaussian. Its sample is written as mean +
scale * noise. The noise does not depend on any parameter, so the gradient passes through the sample as
through any other layer. One objective trains encoder and decoder together. Its KL divergence has a closed
form.

This folder. `model` has the reparameterised sample, the KL divergence of appendix B, equation 10, and the
networks of appendix C with a Bernoulli decoder. It also implements wake-sleep, the earlier method, and two
gradient estimators. `experiment` trains with the bound and with wake-sleep, and compares the bound and the
likelihood on held-out digits. A mixture of Bernoullis is a rival. `digits` draws digits that move.
`gradients` compares the variances of the two gradient estimators.

Dimensions: batch, pixels (of a flattened image), hidden, latent, draws (samples for each image).
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
