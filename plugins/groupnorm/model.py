"""Implements equation 7 as a function and as a layer, and batch normalisation over parts of the batch.

Dimensions: batch, features (channels), positions (none, or height and width).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..batchnorm import BatchNorm, batch_norm, per_feature
from ..layernorm import layer_norm

Batch = Float[Tensor, "batch features *positions"]
Features = Float[Tensor, " features"]


def line_by_line(x: Batch, groups: int, weight: Features, bias: Features, *, eps: float = 1e-5) -> Batch:
    """Equations 1, 2 and 7: normalise each group of channels over all positions of one example."""
    grouped = x.unflatten(1, (groups, -1)).flatten(2)
    mean = grouped.mean(2, keepdim=True)
    std = torch.sqrt(((grouped - mean) ** 2).mean(2, keepdim=True) + eps)
    return per_feature(weight, x) * ((grouped - mean) / std).view_as(x) + per_feature(bias, x)


def group_norm(x: Batch, groups: int, weight: Features, bias: Features, *, eps: float) -> Batch:
    """A faster group normalisation that passes each group as a vector to layer normalisation.

    Half-precision inputs are computed in float32. Raises ValueError if `groups` does not divide the features.
    """
    if x.shape[1] % groups:
        raise ValueError(f"{x.shape[1]} features cannot be split over {groups} groups")
    grouped = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(len(x), groups, -1)
    ones, zeros = grouped.new_ones(grouped.shape[2]), grouped.new_zeros(grouped.shape[2])
    normal = layer_norm(grouped, ones, zeros, eps=eps).view(x.shape)
    return torch.addcmul(per_feature(bias, x), normal, per_feature(weight, x)).to(x.dtype)


class GroupNorm(nn.Module):
    """`group_norm` with a scale and a shift for each channel. Parameters are named as in `nn.GroupNorm`.

    One group is layer normalisation over channels and positions. One channel per group is instance
    normalisation.
    """

    def __init__(self, groups: int, features: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        if features % groups:
            raise ValueError(f"{features} features cannot be split over {groups} groups")
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Batch) -> Batch:
        return group_norm(x, self.groups, self.weight, self.bias, eps=self.eps)


class GhostBatchNorm(BatchNorm):
    """Batch normalisation over `examples` successive examples, as on several devices.

    In training, the batch size must be a multiple of `examples`. The running averages include every ghost.
    """

    def __init__(self, features: int, *, examples: int) -> None:
        super().__init__(features)
        self.examples = examples

    def forward(self, x: Batch) -> Batch:
        if not self.training:
            return super().forward(x)
        ghosts = len(x) // self.examples
        apart = x.unflatten(0, (ghosts, -1)).transpose(0, 1).flatten(1, 2)  # each ghost has its own channels
        weight, bias = self.weight.repeat(ghosts), self.bias.repeat(ghosts)
        y, mean, variance = batch_norm(apart, weight, bias, eps=self.eps)
        count = apart.numel() // apart.shape[1]
        for average, newest in (
            (self.running_mean, mean),
            (self.running_var, variance * count / (count - 1)),
        ):
            average.lerp_(newest.view(ghosts, -1).mean(0).to(average.dtype), self.momentum)
        return y.unflatten(1, (ghosts, -1)).transpose(0, 1).flatten(0, 1)
