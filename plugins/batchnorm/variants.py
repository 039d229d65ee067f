"""Variants of batch normalisation, with one thing left out, and centred filters as its rival."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from .model import Batch, BatchNorm, batch_norm, per_feature

Filters = Float[Tensor, "filters channels height width"]


class OnlyStarted(BatchNorm):
    """Normalises with the mean and variance of the first batch throughout training.

    The network starts like a normalised one, which isolates the effect of that start (as in Mishkin and Matas
    2015, arXiv 1511.06422).
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, momentum=1.0)
        self.register_buffer("started", torch.tensor(False))  # a checkpoint contains it

    def forward(self, x: Batch) -> Batch:
        if not self.started:
            super().forward(x)  # with momentum 1, the averages are this batch's statistics
            self.started.fill_(True)
        self.eval()
        return super().forward(x)


class NoVariance(BatchNorm):
    """Subtracts the batch's mean, without dividing by its standard deviation."""

    def forward(self, x: Batch) -> Batch:
        mean = self.running_mean
        if self.training:
            super().forward(x)
            mean = x.mean((0, *range(2, x.ndim)))
        return x + per_feature(self.bias - mean, x)


class NoMean(BatchNorm):
    """Divides by the batch's standard deviation, without subtracting its mean."""

    def forward(self, x: Batch) -> Batch:
        variance = self.running_var
        if self.training:
            super().forward(x)
            variance = x.var((0, *range(2, x.ndim)), correction=0)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return x * per_feature(scale, x) + per_feature(self.bias, x)


class Constant(BatchNorm):
    """Batch normalisation in which no gradient flows through the mean and the variance."""

    def forward(self, x: Batch) -> Batch:
        if not self.training:
            return super().forward(x)
        super().forward(x)
        _, mean, variance = batch_norm(x, self.weight, self.bias, eps=self.eps)  # without gradient
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return x * per_feature(scale, x) + per_feature(self.bias - mean * scale, x)


class _Centred(nn.Module):
    """Subtracts the mean of each filter's weights. Qiao et al. 2019 (arXiv 1903.10520) also divide by their
    standard deviation."""

    def forward(self, weight: Filters) -> Filters:
        return weight - weight.mean((1, 2, 3), keepdim=True)


def centred(network: nn.Sequential) -> nn.Sequential:
    """The network, with convolutions that subtract the mean of each filter's weights. The gradient flows
    through the mean."""
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            register_parametrization(layer, "weight", _Centred())
    return network
