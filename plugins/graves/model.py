"""Implements mixture density outputs, the soft window over the text, and the handwriting network.

Dimensions: batch, time (points of a stroke), letters, alphabet, components (of a mixture), hidden.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..lstm import LSTM, unroll

Points = Float[Tensor, "batch time 3"]  # offset x, offset y, 1 where a stroke ends


class Mixture(NamedTuple):
    """Equations 17 to 22: the distribution of the next point, and whether a stroke ends there."""

    log_pi: Float[Tensor, "*batch components"]
    mean: Float[Tensor, "*batch components 2"]
    log_sigma: Float[Tensor, "*batch components 2"]
    rho: Float[Tensor, "*batch components"]
    end: Float[Tensor, "*batch"]  # logit

    @classmethod
    def of(cls, outputs: Float[Tensor, "*batch outputs"], *, bias: float = 0.0) -> "Mixture":
        """Parameters from the last layer: 6 outputs per component, and one for the end of a stroke.

        bias  the sampling bias (section 5.4); larger values give neater and less varied handwriting
        """
        components = outputs.shape[-1] // 6
        pi, mean, sigma, rho, end = outputs.split(
            (components, 2 * components, 2 * components, components, 1), -1
        )
        return cls(
            (pi * (1 + bias)).log_softmax(-1),
            mean.unflatten(-1, (components, 2)),
            sigma.unflatten(-1, (components, 2)) - bias,
            0.999 * rho.tanh(),
            end[..., 0],
        )

    def log_density(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """The log-density of a point and of whether its stroke ends there.

        Equations 23 to 26, without the minus sign.
        """
        z = (points[..., None, :2] - self.mean) * (-self.log_sigma).exp()
        rest = 1 - self.rho.square()
        quadratic = z.square().sum(-1) - 2 * self.rho * z.prod(-1)
        log_normal = -quadratic / (2 * rest) - self.log_sigma.sum(-1) - rest.log() / 2 - math.log(2 * math.pi)
        log_end = -F.binary_cross_entropy_with_logits(self.end, points[..., 2], reduction="none")
        return (self.log_pi + log_normal).logsumexp(-1) + log_end

    def sample(self, generator: torch.Generator) -> Float[Tensor, "batch 3"]:
        """Samples one point for each row of the batch."""
        chosen = torch.multinomial(self.log_pi.exp().float().cpu(), 1, generator=generator).to(
            self.rho.device
        )
        pair = chosen[..., None].expand(-1, 1, 2)
        mean, sigma = self.mean.gather(1, pair)[:, 0], self.log_sigma.gather(1, pair)[:, 0].exp()
        rho = self.rho.gather(1, chosen)
        first, second = torch.randn(len(rho), 2, generator=generator).to(rho).split(1, 1)
        second = rho * first + (1 - rho.square()).sqrt() * second
        uniform = torch.rand(len(rho), generator=generator).to(rho)
        return torch.cat(
            (mean + sigma * torch.cat((first, second), 1), (uniform < self.end.sigmoid())[:, None]), 1
        )


def window_weights(
    outputs: Float[Tensor, "batch three_times"], kappa: Float[Tensor, "batch gaussians"], letters: int
) -> tuple[Float[Tensor, "batch {letters}"], Float[Tensor, "batch gaussians"]]:
    """Equations 46 to 51: the weights φ(t, u) of the letters, and the new positions of the window.

    The window moves by the exponential of an output, so it never moves backwards.
    """
    alpha, beta, step = outputs.exp().chunk(3, 1)
    kappa = kappa + step
    u = torch.arange(letters, device=outputs.device, dtype=outputs.dtype)
    distance = (kappa[:, :, None] - u).square()
    return (alpha[:, :, None] * torch.exp(-beta[:, :, None] * distance)).sum(1), kappa


class State(NamedTuple):
    """State to continue writing from: both layers' states and cells, the window's position and output."""

    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    kappa: Tensor
    seen: Tensor


class Writer(nn.Module):
    """Two LSTMs. The first moves the window over the text, and both receive the window's output.

    Source: section 5.1.

    text  what the LSTMs receive: "window" (the window's output), "mean" (the mean of the letters) or "none"
    """

    def __init__(
        self,
        alphabet: int,
        *,
        hidden: int = 400,
        components: int = 20,
        gaussians: int = 10,
        text: str = "window",
    ) -> None:
        super().__init__()
        self.alphabet, self.text, self.gaussians = alphabet, text, gaussians
        self.first = LSTM(3 + alphabet, hidden)
        self.second = LSTM(3 + alphabet + hidden, hidden)
        self.window = nn.Linear(hidden, 3 * gaussians)
        self.readout = nn.Linear(2 * hidden, 6 * components + 1)
        with torch.no_grad():
            self.window.bias[2 * gaussians :] -= (
                3.0  # the window starts slowly, so that it does not run past the text
            )

    def begin(self, batch: int) -> State:
        def zeros(width: int) -> Tensor:
            return self.readout.weight.new_zeros(batch, width)

        hidden = self.first.recurrent.in_features
        return State(
            (zeros(hidden), zeros(hidden)),
            (zeros(hidden), zeros(hidden)),
            zeros(self.gaussians),
            zeros(self.alphabet),
        )

    def forward(
        self, points: Points, words: Int[Tensor, "batch letters"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time outputs"], Float[Tensor, "batch time letters"], State]:
        """Returns the mixture parameters of every next point, the window's weights, and the new state."""
        letters = F.one_hot(words, self.alphabet).to(points.dtype)
        state = self.begin(len(points)) if state is None else state
        (h, c), kappa, seen = state.first, state.kappa, state.seen
        own = self.first.input.weight, self.first.recurrent.weight, self.first.input.bias
        hidden, shown, weights = [], [], []
        for point in points.unbind(1):
            states, c = unroll(torch.cat((point, seen), 1)[:, None], h, c, *own)
            h = states[:, 0]
            weight, kappa = self.look(h, point, kappa, words.shape[1])
            if self.text == "mean":
                weight = torch.full_like(weight, 1 / words.shape[1])
            seen = (weight[:, None] @ letters)[:, 0]
            if self.text == "none":
                seen = torch.zeros_like(seen)
            hidden.append(h)
            shown.append(seen)
            weights.append(weight)
        below, text = torch.stack(hidden, 1), torch.stack(shown, 1)
        above, second = self.second(torch.cat((points, text, below), 2), state.second)
        outputs = self.readout(torch.cat((below, above), 2))
        return outputs, torch.stack(weights, 1), State((h, c), second, kappa, seen)

    def look(
        self,
        h: Float[Tensor, "batch hidden"],
        point: Float[Tensor, "batch 3"],
        kappa: Float[Tensor, "batch gaussians"],
        letters: int,
    ) -> tuple[Float[Tensor, "batch letters"], Float[Tensor, "batch gaussians"]]:
        """The weights of the letters after the last `point`, and the new positions of the window."""
        return window_weights(self.window(h), kappa, letters)

    def nats(
        self, points: Points, words: Int[Tensor, "batch letters"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Mean negative log-density in nats per point, over all points of all words."""
        before = F.pad(points[:, :-1], (0, 0, 1, 0))
        density = Mixture.of(self(before, words)[0]).log_density(points)
        inside = torch.arange(points.shape[1], device=points.device) < lengths[:, None]
        return -(density * inside).sum() / inside.sum()

    @torch.no_grad()
    def write(
        self, words: Int[Tensor, "batch letters"], time: int, generator: torch.Generator, *, bias: float = 0.0
    ) -> tuple[Points, Float[Tensor, "batch time letters"]]:
        """Samples `time` points for each word. Returns the points and the window's weights."""
        state, point = self.begin(len(words)), self.readout.weight.new_zeros(len(words), 1, 3)
        drawn, weights = [], []
        for _ in range(time):
            outputs, weight, state = self(point, words, state)
            point = Mixture.of(outputs[:, 0], bias=bias).sample(generator)[:, None]
            drawn.append(point)
            weights.append(weight)
        return torch.cat(drawn, 1), torch.cat(weights, 1)
