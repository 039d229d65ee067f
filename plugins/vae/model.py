"""Implements the variational bound with a reparameterised sample, and the estimators it is compared with."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "batch pixels"]
Posterior = Float[Tensor, "batch latent"]
Latents = Float[Tensor, "*draws batch latent"]


def sample(mean: Posterior, log_variance: Posterior, noise: Latents) -> Latents:
    """Section 2.4: a reparameterised sample, which passes gradients on to the mean and the variance.

    noise  standard normal
    """
    return mean + (log_variance / 2).exp() * noise


def divergence(mean: Posterior, log_variance: Posterior) -> Float[Tensor, " batch"]:
    """Appendix B: the divergence KL(q(z|x) || p(z)) of a diagonal Gaussian from the standard normal."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)


def log_bernoulli(logits: Float[Tensor, "*draws batch pixels"], x: Images) -> Float[Tensor, "*draws batch"]:
    """Equation 11: log p(x|z) with independent pixels."""
    return (x * logits - F.softplus(logits)).sum(-1)


def log_normal(
    z: Latents, mean: Float[Tensor, "#batch latent"], log_variance: Float[Tensor, "#batch latent"]
) -> Float[Tensor, "*draws batch"]:
    """Equation 12: the log-density of a diagonal Gaussian."""
    distance = (z - mean).square() / log_variance.exp()
    return -0.5 * (math.log(2 * math.pi) + log_variance + distance).sum(-1)


class VAE(nn.Module):
    """Appendix C: MLPs with one tanh layer as Gaussian encoder (C.2) and Bernoulli decoder (C.1).

    For MNIST the paper uses 784 pixels, 500 hidden units, and 3 to 200 latent variables (section 5).
    """

    def __init__(self, pixels: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Linear(pixels, hidden)
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decoder = nn.Linear(latent, hidden)
        self.pixels = nn.Linear(hidden, pixels)

    def encode(self, x: Images) -> tuple[Posterior, Posterior]:
        """The mean and the log-variance of q(z|x)."""
        hidden = torch.tanh(self.encoder(x))
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Latents) -> Float[Tensor, "*draws batch pixels"]:
        """Logits of the pixels."""
        return self.pixels(torch.tanh(self.decoder(z)))

    def forward(self, x: Images, noise: Posterior) -> Float[Tensor, " batch"]:
        """Equation 10 with one sample: a lower bound on log p(x), in nats."""
        mean, log_variance = self.encode(x)
        logits = self.decode(sample(mean, log_variance, noise))
        return log_bernoulli(logits, x) - divergence(mean, log_variance)


def log_likelihood(
    model: VAE, x: Images, noise: Float[Tensor, "draws batch latent"]
) -> Float[Tensor, " batch"]:
    """The log of the mean of p(x, z) / q(z|x) over the draws: a lower bound on log p(x), which gets tighter
    with more draws (Burda, Grosse and Salakhutdinov 2015, arXiv 1509.00519, equation 8)."""
    mean, log_variance = model.encode(x)
    z = sample(mean, log_variance, noise)
    zero = torch.zeros_like(mean[:1])
    joint = log_bernoulli(model.decode(z), x) + log_normal(z, zero, zero)
    return (joint - log_normal(z, mean, log_variance)).logsumexp(0) - math.log(len(noise))


def wake_sleep(
    model: VAE, x: Images, noise: Posterior, dream: Posterior, uniform: Images
) -> Float[Tensor, " batch"]:
    """The wake-sleep objective (Hinton et al. 1995). In the wake phase the decoder learns to invert the
    encoder. In the sleep phase the encoder learns to invert the decoder.

    dream    standard normal: the latents of the dreamt images
    uniform  in [0, 1), to sample the pixels of the dreamt images
    """
    with torch.no_grad():
        causes = sample(*model.encode(x), noise)
        dreamt = (uniform < model.decode(dream).sigmoid()).to(x)
    awake = log_bernoulli(model.decode(causes), x)
    asleep = log_normal(dream, *model.encode(dreamt))
    return awake + asleep


def without_divergence(model: VAE, x: Images, noise: Posterior) -> Float[Tensor, " batch"]:
    """A break: equation 10 without the KL divergence."""
    return log_bernoulli(model.decode(sample(*model.encode(x), noise)), x)


def without_gradient(model: VAE, x: Images, noise: Posterior) -> Float[Tensor, " batch"]:
    """A break: equation 10 with a detached sample, through which no gradient reaches the encoder."""
    mean, log_variance = model.encode(x)
    z = sample(mean, log_variance, noise).detach()
    return log_bernoulli(model.decode(z), x) - divergence(mean, log_variance)


def by_density(model: VAE, x: Images, noise: Float[Tensor, "draws batch latent"]) -> Float[Tensor, " batch"]:
    """A break: section 2.2's score-function gradient instead of the gradient through the sample. With several
    draws, the mean of log p(x|z) over the other draws is subtracted.

    The expected gradients equal those of equation 10, but the value differs.
    """
    mean, log_variance = model.encode(x)
    z = sample(mean, log_variance, noise).detach()
    fit = log_bernoulli(model.decode(z), x)
    value = fit.detach()
    others = (value.sum(0) - value) / max(1, len(noise) - 1)
    away = (value - others) * log_normal(z, mean, log_variance)
    return (fit + away).mean(0) - divergence(mean, log_variance)


Draws = Float[Tensor, "draws batch _"]


def gradient_draws(
    model: VAE, x: Images, noise: Float[Tensor, "draws batch latent"]
) -> tuple[Draws, Draws, Float[Tensor, "draws batch 1"]]:
    """Estimates, for each draw, of the gradient of E[log p(x|z)] with respect to mean and log-variance.

    Returns the estimate through the sample; the score-function estimate, log p(x|z) times the gradient of
    log q(z|x); and log p(x|z).
    """
    mean, log_variance = (guess.detach() for guess in model.encode(x))
    z = sample(mean, log_variance, noise).requires_grad_()
    value = log_bernoulli(model.decode(z), x)
    (to_sample,) = torch.autograd.grad(value.sum(), z)
    scale = (log_variance / 2).exp()
    through = torch.cat((to_sample, to_sample * scale * noise / 2), -1)
    score = torch.cat((noise / scale, (noise.square() - 1) / 2), -1)
    value = value.detach()[..., None]
    return through, value * score, value
