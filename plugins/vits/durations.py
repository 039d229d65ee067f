"""The stochastic duration predictor (section 2.2.2, appendix B): a flow over durations.

Parameters are named as in `transformers`.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..glow_tts import ActNorm
from .spline import spline

Symbols = Float[Tensor, "batch channels symbols"]
Pair = Float[Tensor, "batch 2 symbols"]
Mask = Float[Tensor, "batch 1 symbols"]
PerRow = Float[Tensor, " batch"]
BINS = 10


class Convolutions(nn.Module):
    """Residual blocks of a dilated depthwise convolution and a pointwise convolution."""

    def __init__(self, channels: int, kernel: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.convs_dilated = nn.ModuleList()
        for layer in range(layers):
            dilation = kernel**layer
            self.convs_dilated.append(
                nn.Conv1d(
                    channels,
                    channels,
                    kernel,
                    groups=channels,
                    dilation=dilation,
                    padding=dilation * (kernel // 2),
                )
            )
        self.convs_pointwise = nn.ModuleList([nn.Conv1d(channels, channels, 1) for _ in range(layers)])
        self.norms_1 = nn.ModuleList([nn.LayerNorm(channels) for _ in range(layers)])
        self.norms_2 = nn.ModuleList([nn.LayerNorm(channels) for _ in range(layers)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Symbols, mask: Mask) -> Symbols:
        for dilated, pointwise, norm_1, norm_2 in zip(
            self.convs_dilated, self.convs_pointwise, self.norms_1, self.norms_2, strict=True
        ):
            hidden = F.gelu(norm_1(dilated(x * mask).mT)).mT
            hidden = F.gelu(norm_2(pointwise(hidden).mT)).mT
            x = x + self.dropout(hidden)
        return x * mask


class SplineCoupling(nn.Module):
    """The first channel, with its neighbours and the text, determines the spline of the second channel."""

    def __init__(self, hidden: int, kernel: int, layers: int) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(1, hidden, 1)
        self.conv_dds = Convolutions(hidden, kernel, layers, 0.0)
        self.conv_proj = nn.Conv1d(hidden, 3 * BINS - 1, 1)
        nn.init.zeros_(self.conv_proj.weight)
        nn.init.zeros_(self.conv_proj.bias)

    def bend(self, x: Pair, mask: Mask, given: Symbols, inverse: bool) -> tuple[Pair, PerRow]:
        first, second = x.chunk(2, 1)
        hidden = self.conv_dds(self.conv_pre(first) + given, mask)
        shape = (self.conv_proj(hidden) * mask).mT.unsqueeze(1)
        widths, heights, slopes = shape.split((BINS, BINS, BINS - 1), -1)
        scale = hidden.shape[1] ** -0.5
        second, logs = spline(second, widths * scale, heights * scale, slopes, inverse=inverse)
        return torch.cat((first, second), 1) * mask, (logs * mask).sum((1, 2))

    def forward(self, x: Pair, mask: Mask, given: Symbols) -> tuple[Pair, PerRow]:
        return self.bend(x, mask, given, inverse=False)

    def inverse(self, z: Pair, mask: Mask, given: Symbols) -> Pair:
        return self.bend(z, mask, given, inverse=True)[0]


class DurationFlow(nn.Module):
    """A scale and a shift of both channels, then couplings that swap the channels."""

    def __init__(self, hidden: int, kernel: int, layers: int, couplings: int) -> None:
        super().__init__()
        self.scale = ActNorm(2)
        self.couplings = nn.ModuleList([SplineCoupling(hidden, kernel, layers) for _ in range(couplings)])

    def forward(self, x: Pair, mask: Mask, given: Symbols) -> tuple[Pair, PerRow]:
        x, total = self.scale(x, mask)
        for coupling in self.couplings:
            x, logs = coupling(x, mask, given)
            x, total = x.flip(1), total + logs
        return x, total

    def inverse(self, z: Pair, mask: Mask, given: Symbols) -> Pair:
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z.flip(1), mask, given)
        return self.scale.inverse(z, mask)

    def sample(self, z: Pair, mask: Mask, given: Symbols) -> Pair:
        """`inverse` without the coupling next to the data, which only changes the auxiliary variable."""
        for coupling in reversed(self.couplings[1:]):
            z = coupling.inverse(z.flip(1), mask, given)
        return self.scale.inverse(z.flip(1), mask)


class StochasticDurations(nn.Module):
    """Samples the duration of each symbol: a whole number of frames, at least one.

    A flow needs continuous values in more than one channel. So u in (0, 1) is subtracted from each duration,
    and an auxiliary variable nu is appended. Both are sampled from a posterior flow, given the durations.
    """

    def __init__(
        self, hidden: int, kernel: int = 3, layers: int = 3, couplings: int = 4, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(hidden, hidden, 1)
        self.conv_proj = nn.Conv1d(hidden, hidden, 1)
        self.conv_dds = Convolutions(hidden, kernel, layers, dropout)
        self.flow = DurationFlow(hidden, kernel, layers, couplings)
        self.post_conv_pre = nn.Conv1d(1, hidden, 1)
        self.post_conv_proj = nn.Conv1d(hidden, hidden, 1)
        self.post_conv_dds = Convolutions(hidden, kernel, layers, dropout)
        self.post_flow = DurationFlow(hidden, kernel, layers, couplings)

    def condition(self, text: Symbols, mask: Mask) -> Symbols:
        """Text features for the flows, detached from the text encoder (section 2.2.2)."""
        hidden = self.conv_dds(self.conv_pre(text.detach()), mask)
        condition: Symbols = self.conv_proj(hidden) * mask
        return condition

    def forward(self, text: Symbols, mask: Mask, durations: Mask, noise: Pair) -> PerRow:
        """An upper bound on -log p(durations | text) in nats, from one sample of u and nu.

        durations  integers, (batch, 1, symbols), 0 after each row's end
        noise      standard normal
        """
        given = self.condition(text, mask)
        seen = self.post_conv_proj(self.post_conv_dds(self.post_conv_pre(durations), mask)) * mask
        noise = noise * mask
        drawn, log_posterior = self.post_flow(noise, mask, given + seen)
        u, nu = drawn.chunk(2, 1)
        log_sigmoid = ((F.logsigmoid(u) + F.logsigmoid(-u)) * mask).sum((1, 2))
        log_q = -_surprise(noise, mask) - log_posterior - log_sigmoid
        logs = (durations - u.sigmoid()).clamp(min=1e-5).log() * mask
        z, log_prior = self.flow(torch.cat((logs, nu), 1), mask, given)
        return _surprise(z, mask) - log_prior + logs.sum((1, 2)) + log_q

    def sample(self, text: Symbols, mask: Mask, noise: Pair) -> Mask:
        """Log durations before rounding up. The standard deviation of `noise` is the temperature."""
        return self.flow.sample(noise, mask, self.condition(text, mask))[:, :1]


def _surprise(z: Pair, mask: Mask) -> PerRow:
    """Negative log density under a standard normal."""
    return (0.5 * (math.log(2 * math.pi) + z.square()) * mask).sum((1, 2))
