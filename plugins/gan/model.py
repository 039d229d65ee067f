"""Implements both networks, their losses, and the closed forms of the theory."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Logits = Float[Tensor, " batch"]
Samples = Float[Tensor, "batch pixels"]
Loss = Float[Tensor, ""]


class Generator(nn.Module):
    """Section 5: hidden layers with ReLU, and sigmoids for the pixels."""

    def __init__(self, latent: int, hidden: int, pixels: int) -> None:
        super().__init__()
        self.latent = latent
        self.first = nn.Linear(latent, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.pixels = nn.Linear(hidden, pixels)

    def forward(self, z: Float[Tensor, "batch latent"]) -> Samples:
        return self.pixels(F.relu(self.second(F.relu(self.first(z))))).sigmoid()


class Maxout(nn.Module):
    """The maximum of `pieces` linear functions (Goodfellow et al. 2013, arXiv 1302.4389)."""

    def __init__(self, inputs: int, outputs: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(inputs, outputs * pieces)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        return cast(Tensor, self.linear(x).unflatten(-1, (-1, self.pieces)).amax(-1))


class Discriminator(nn.Module):
    """Section 5: maxout units with dropout. Returns the logit of D(x), the probability that x is data."""

    def __init__(self, pixels: int, hidden: int, pieces: int = 3, dropout: float = 0.3) -> None:
        super().__init__()
        self.first = Maxout(pixels, hidden, pieces)
        self.second = Maxout(hidden, hidden, pieces)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Samples) -> Logits:
        hidden = self.dropout(self.first(x))
        return cast(Tensor, self.out(self.dropout(self.second(hidden)))[..., 0])


def discriminator_loss(real: Logits, fake: Logits) -> Loss:
    """Algorithm 1's discriminator loss: the cross-entropy of real and generated samples."""
    # The negative mean of log D(x) + log(1 - D(G(z))).
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def minimax_loss(fake: Logits) -> Loss:
    """Equation 1 for the generator: the mean of log(1 - D(G(z)))."""
    return -F.softplus(fake).mean()


def non_saturating_loss(fake: Logits) -> Loss:
    """Section 3's generator loss. The equilibrium is the same, but the gradient is large where D is
    confident."""
    # The negative mean of log D(G(z)).
    return F.softplus(-fake).mean()


class Game(nn.Module):
    """Generator and discriminator. The forward pass returns the losses of both on the same noise."""

    def __init__(self, pixels: int, hidden: int, latent: int, pieces: int = 3, dropout: float = 0.3) -> None:
        super().__init__()
        self.generator = Generator(latent, hidden, pixels)
        self.discriminator = Discriminator(pixels, hidden // 2, pieces, dropout)

    def forward(self, x: Samples, z: Float[Tensor, "batch latent"]) -> tuple[Loss, Loss]:
        fake = self.generator(z)
        real = self.discriminator(x)
        wants = discriminator_loss(real, self.discriminator(fake.detach()))
        return wants, non_saturating_loss(self.discriminator(fake))


Density = Float[Tensor, " points"]


def optimal_discriminator(p: Density, q: Density) -> Density:
    """Proposition 1: the optimal D for densities p of the data and q of the samples."""
    return p / (p + q)


def value(p: Density, q: Density, spacing: float) -> float:
    """Equations 4 and 6: the value of the game against the optimal D, for densities on a grid."""
    # 2 JSD(p, q) - log 4.
    middle = (p + q) / 2
    divergences = [torch.special.xlogy(one, one / middle).sum() * spacing for one in (p, q)]
    return float(divergences[0] + divergences[1]) - math.log(4)


def parzen(samples: Samples, x: Float[Tensor, "n pixels"], width: float) -> Float[Tensor, " n"]:
    """Table 1's estimate of log p(x) in nats: Gaussians of standard deviation `width` around the samples."""
    distance = torch.cdist(x.double(), samples.double()).square()
    height = math.log(len(samples)) + x.shape[1] / 2 * math.log(2 * math.pi * width**2)
    return (-distance / (2 * width**2)).logsumexp(1) - height
