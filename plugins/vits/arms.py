"""What the experiment compares: predictors of durations that share a trunk and the way they are called."""

import torch
from torch import Tensor, nn

from .durations import Convolutions, StochasticDurations

HIDDEN = 16


class OneDuration(nn.Module):
    """The control: the predictor's own trunk, and one logarithm of a duration for each symbol."""

    ROUNDS = 2  # as many steps again: each costs a tenth

    def __init__(self) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(HIDDEN, HIDDEN, 1)
        self.conv_dds = Convolutions(HIDDEN, 3, 1, 0.0)
        self.out = nn.Conv1d(HIDDEN, 1, 1)

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, _: Tensor) -> Tensor:
        # Half a frame less, for it is rounded up.
        return ((self.sample(text, mask, _).exp() - (durations - 0.5)).abs() * mask).sum((1, 2))

    def sample(self, text: Tensor, mask: Tensor, _: Tensor) -> Tensor:
        logs: Tensor = self.out(self.conv_dds(self.conv_pre(text), mask))
        return logs


class Drawn(StochasticDurations):
    """The paper's, at the size of the toy."""

    ROUNDS = 1

    def __init__(self) -> None:
        super().__init__(HIDDEN, 3, 1, 2, 0.0)

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, noise: Tensor) -> Tensor:
        bound: Tensor = self(text, mask, durations, noise)
        return bound


class Still(Drawn):
    """Every draw is the middle one."""

    def sample(self, text: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        return super().sample(text, mask, torch.zeros_like(noise))


class Blind(Drawn):
    """It knows nothing of the sentence but its length."""

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, noise: Tensor) -> Tensor:
        return super().loss(torch.zeros_like(text), mask, durations, noise)

    def sample(self, text: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        return super().sample(torch.zeros_like(text), mask, noise)


class LogNormal(OneDuration):
    """The control's trunk, with the mean and the deviation of each symbol's logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv1d(HIDDEN, 2, 1)

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, _: Tensor) -> Tensor:
        mean, deviation = super().sample(text, mask, _).chunk(2, 1)
        # Half a frame less, for it is rounded up.
        apart = ((durations - 0.5).clamp(min=0.5).log() - mean) * (-deviation).exp()
        return ((0.5 * apart.square() + deviation) * mask).sum((1, 2))

    def sample(self, text: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        mean, deviation = super().sample(text, mask, noise).chunk(2, 1)
        return mean + deviation.exp() * noise[:, :1]
