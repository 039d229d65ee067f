"""The duration predictors to compare, which share a trunk and an interface."""

import torch
from torch import Tensor, nn

from .durations import Convolutions, StochasticDurations

HIDDEN = 16


class OneDuration(nn.Module):
    """The control: the paper's trunk, and one log duration per symbol."""

    ROUNDS = 2  # twice as many steps as for the flow, because each costs a tenth

    def __init__(self) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(HIDDEN, HIDDEN, 1)
        self.conv_dds = Convolutions(HIDDEN, 3, 1, 0.0)
        self.out = nn.Conv1d(HIDDEN, 1, 1)

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, _: Tensor) -> Tensor:
        # Subtract half a frame, because the prediction is rounded up.
        return ((self.sample(text, mask, _).exp() - (durations - 0.5)).abs() * mask).sum((1, 2))

    def sample(self, text: Tensor, mask: Tensor, _: Tensor) -> Tensor:
        logs: Tensor = self.out(self.conv_dds(self.conv_pre(text), mask))
        return logs


class Drawn(StochasticDurations):
    """The paper's stochastic duration predictor, at a small size."""

    ROUNDS = 1

    def __init__(self) -> None:
        super().__init__(HIDDEN, 3, 1, 2, 0.0)

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, noise: Tensor) -> Tensor:
        bound: Tensor = self(text, mask, durations, noise)
        return bound


class Still(Drawn):
    """Always samples with zero noise."""

    def sample(self, text: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        return super().sample(text, mask, torch.zeros_like(noise))


class Blind(Drawn):
    """A flow that sees only the length of the sentence, not its symbols."""

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, noise: Tensor) -> Tensor:
        return super().loss(torch.zeros_like(text), mask, durations, noise)

    def sample(self, text: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        return super().sample(torch.zeros_like(text), mask, noise)


class LogNormal(OneDuration):
    """The control's trunk, with a mean and a log standard deviation of each symbol's log duration."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv1d(HIDDEN, 2, 1)

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, _: Tensor) -> Tensor:
        mean, deviation = super().sample(text, mask, _).chunk(2, 1)
        # Subtract half a frame, because the prediction is rounded up.
        apart = ((durations - 0.5).clamp(min=0.5).log() - mean) * (-deviation).exp()
        return ((0.5 * apart.square() + deviation) * mask).sum((1, 2))

    def sample(self, text: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        mean, deviation = super().sample(text, mask, noise).chunk(2, 1)
        return mean + deviation.exp() * noise[:, :1]
