"""Implements the equation of section 2, and the layer.

Dimensions: batch, features (channels), positions (height and width).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..batchnorm import batch_norm, per_feature

Batch = Float[Tensor, "batch features *positions"]
Features = Float[Tensor, " features"]


def line_by_line(x: Batch, weight: Features, bias: Features, *, eps: float = 1e-5) -> Batch:
    """Section 2: normalises each channel of each image over its positions."""
    dims = tuple(range(2, x.ndim))
    mean = x.mean(dims, keepdim=True)
    variance = ((x - mean) ** 2).mean(dims, keepdim=True)
    return per_feature(weight, x) * ((x - mean) / torch.sqrt(variance + eps)) + per_feature(bias, x)


def instance_norm(x: Batch, weight: Features, bias: Features, *, eps: float) -> Batch:
    """A faster instance normalisation: batch normalisation of one example with the channels of all images."""
    batch = len(x)
    apart = x.reshape(1, batch * x.shape[1], *x.shape[2:])
    y, _, _ = batch_norm(apart, weight.repeat(batch), bias.repeat(batch), eps=eps)
    return y.view(x.shape)


class InstanceNorm(nn.Module):
    """`instance_norm` with a scale and a shift for each channel, the same in training and at inference.

    Parameters are named as in `nn.InstanceNorm2d(features, affine=True)`. Raises ValueError if a channel has
    a single position, because the result would be the shift alone.
    """

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Batch) -> Batch:
        if x[0, 0].numel() == 1:
            raise ValueError(f"a single position has no variance: input of shape {tuple(x.shape)}")
        return instance_norm(x, self.weight, self.bias, eps=self.eps)
