"""Implements the forward process and its reverse in closed form, and a perceptron that predicts the noise."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

Data = Float[Tensor, "batch *shape"]
Times = Int[Tensor, " batch"]
PerSample = Float[Tensor, " batch"]


@dataclass(frozen=True)
class Schedule:
    """The variances of the steps, beta_t, in float32 or float64. t counts from 0.

    Factors are computed in this precision, whatever the precision of the data, because 1 - alpha_bar is as
    small as 1e-4.
    """

    beta: Float[Tensor, " T"]

    @property
    def alpha_bar(self) -> Float[Tensor, " T"]:
        """ᾱ_t: the share of the data's variance that is left after step t."""
        return (1 - self.beta).cumprod(0)

    @property
    def alpha_bar_before(self) -> Float[Tensor, " T"]:
        """ᾱ_{t-1}, which is 1 at t = 0."""
        return F.pad(self.alpha_bar[:-1], (1, 0), value=1.0)

    def of(self, times: Int[Tensor, " few"]) -> "Schedule":
        """The chain that visits only these steps, each with the total noise since the previous step (Nichol
        and Dhariwal 2021, arXiv 2102.09672, equation 19)."""
        kept = self.alpha_bar[times]
        return Schedule(1 - kept / F.pad(kept[:-1], (1, 0), value=1.0))

    def add_noise(self, x0: Data, t: Times, noise: Data) -> Data:
        """Equation 4: a sample of q(x_t | x_0)."""
        kept = self.alpha_bar[t]
        return like(kept.sqrt(), x0) * x0 + like((1 - kept).sqrt(), x0) * noise

    def predict_x0(self, x: Data, t: Times, noise: Data) -> Data:
        """Equation 4 solved for x_0, given the predicted noise."""
        kept = self.alpha_bar[t]
        return (x - like((1 - kept).sqrt(), x) * noise) / like(kept.sqrt(), x)

    def posterior(self, x0: Data, x: Data, t: Times) -> tuple[Data, PerSample]:
        """Equations 6 and 7: mean and variance of q(x_{t-1} | x_t, x_0)."""
        beta, kept, before = self.beta[t], self.alpha_bar[t], self.alpha_bar_before[t]
        to_x0 = before.sqrt() * beta / (1 - kept)
        to_x = (1 - beta).sqrt() * (1 - before) / (1 - kept)
        return like(to_x0, x) * x0 + like(to_x, x) * x, (1 - before) / (1 - kept) * beta

    def mean(self, x: Data, t: Times, noise: Data) -> Data:
        """Equation 11: the mean of p(x_{t-1} | x_t), given the predicted noise."""
        beta, kept = self.beta[t], self.alpha_bar[t]
        return (x - like(beta / (1 - kept).sqrt(), x) * noise) / like((1 - beta).sqrt(), x)

    def step(self, x: Data, t: Times, noise: Data, draw: Data, *, small: bool = False) -> Data:
        """Algorithm 2: one step back, with variance beta_t or (`small`) the posterior's, and without noise at
        t = 0.

        noise  predicted noise
        draw   standard normal noise
        """
        beta, before, kept = self.beta[t], self.alpha_bar_before[t], self.alpha_bar[t]
        variance = (1 - before) / (1 - kept) * beta if small else beta
        spread = torch.where(t > 0, variance.sqrt(), 0.0)
        return self.mean(x, t, noise) + like(spread, x) * draw

    def ddim_step(self, x: Data, t: Times, before: Times, noise: Data) -> Data:
        """DDIM (Song et al. 2020, arXiv 2010.02502, equation 12, σ = 0) from t to `before`, -1 for data."""
        kept = torch.where(before >= 0, self.alpha_bar[before.clamp(min=0)], 1.0)
        x0 = self.predict_x0(x, t, noise)
        return like(kept.sqrt(), x) * x0 + like((1 - kept).sqrt(), x) * noise

    def bound_weight(self, t: Times) -> PerSample:
        """Equation 12: the bound's weight on |noise - predicted|^2, for the variance beta_t."""
        beta = self.beta[t]
        return beta / (2 * (1 - beta) * (1 - self.alpha_bar[t]))


def linear_schedule(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Section 4: beta rises from 1e-4 to 0.02 in a thousand steps, in float64."""
    return Schedule(torch.linspace(first, last, steps, dtype=torch.float64))


def like(values: PerSample, x: Data) -> Tensor:
    """One value per sample, reshaped to broadcast over `x`."""
    return values.to(x).view(-1, *[1] * (x.dim() - 1))


def timestep_embedding(t: Times, width: int) -> Float[Tensor, "batch width"]:
    """Sines, then cosines, of t at frequencies from 1 to 1 / 10000, both included."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=t.device))
    angles = t[:, None].float() * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1)


class Perceptron(nn.Module):
    """Predicts the noise in rows of pixels, with residual blocks that are conditioned on the time.

    Layer normalisation removes the scale of the input. This scale nearly determines the answer when x is
    almost pure noise. The input, times a factor learned for each time, is therefore added to the output.
    """

    def __init__(self, pixels: int, width: int = 128, blocks: int = 3) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU())
        self.into = nn.Linear(pixels, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(blocks)])
        self.out = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, pixels))
        self.skip = nn.Linear(width, 1)
        for last in (self.out[-1], self.skip):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, x: Float[Tensor, "batch pixels"], t: Int[Tensor, "#batch"]
    ) -> Float[Tensor, "batch pixels"]:
        time = self.time(timestep_embedding(t, 64).to(x))
        hidden = self.into(x)
        for block in self.blocks:
            hidden = block(hidden, time)
        return self.out(hidden) + self.skip(time) * x


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.time = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch width"], time: Float[Tensor, "#batch width"]
    ) -> Float[Tensor, "batch width"]:
        hidden = F.silu(self.first(F.silu(self.norm(x))) + self.time(time))
        return x + self.second(hidden)
