"""Implements equation 2, the layer, its initialisation (section 3), and mean-only batch normalisation
(section 4).

Dimensions: units (output features or channels), fan-in (the axes of one unit's weight vector).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Weight = Float[Tensor, "units *fan_in"]
Lengths = Float[Tensor, "units *ones"]


def line_by_line(v: Weight, g: Lengths) -> Weight:
    """Equation 2: w = g v / ‖v‖, for each unit separately."""
    return g * v / v.square().sum(tuple(range(1, v.ndim)), keepdim=True).sqrt()


def weight_norm(v: Weight, g: Lengths) -> Weight:
    """Equation 2 with one scale per unit. Half precision is computed in float32."""
    single = torch.promote_types(v.dtype, torch.float32)
    scale = g.to(single) / torch.linalg.vector_norm(v, dim=axes(v), keepdim=True, dtype=single)
    return (v * scale).to(v.dtype)


def axes(v: Tensor) -> tuple[int, ...]:
    """The axes of one unit's weight vector."""
    return tuple(range(1, v.ndim))


class WeightNorm(nn.Module):
    """A weight-normalised linear layer or convolution, with the parameter names of `nn.utils.weight_norm`.

    Call `start` with a batch before training. Without `start`, the output is the same as that of `layer`.
    """

    normalise: Callable[[Weight, Lengths], Weight] = staticmethod(weight_norm)

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        """Reuses the weight and bias of `layer`, which must have a bias.

        Raises ValueError for a convolution that pads with anything but zeros.
        """
        super().__init__()
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            raise ValueError(f"only zero padding is supported, not {layer.padding_mode!r}")
        weight = layer.weight.detach()
        self.weight_g = nn.Parameter(torch.linalg.vector_norm(weight, dim=axes(weight), keepdim=True))
        self.weight_v = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(layer.bias.detach().clone())
        settings = ("stride", "padding", "dilation", "groups")
        self.settings = {name: getattr(layer, name) for name in settings if isinstance(layer, nn.Conv2d)}

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        weight = self.normalise(self.weight_v, self.weight_g)
        if weight.ndim == 2:
            return F.linear(x, weight, self.bias)
        return F.conv2d(x, weight, self.bias, **self.settings)

    @torch.no_grad()
    def start(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Equations 5 and 6: set lengths and biases so that each unit has mean 0 and variance 1 on `x`.

        A unit that is constant on `x` keeps its length. Returns the layer's output.
        """
        y = self(x)
        features = y.movedim(1 if self.weight_v.ndim > 2 else -1, 0).flatten(1)
        mean, std = features.mean(1), features.std(1, correction=0)
        std = torch.where(std > 0, std, 1)
        self.weight_g /= std.view_as(self.weight_g)
        self.bias.sub_(mean).div_(std)
        return self(x)


def start_from_data(network: nn.Sequential, x: Float[Tensor, "batch ..."]) -> None:
    """Initialise the layers in order, each on the output of the previous layers."""
    for layer in network:
        x = (layer.start(x) if isinstance(layer, WeightNorm) else layer(x)).detach()


class MeanOnlyBatchNorm(nn.Module):
    """Section 4: subtract each feature's batch mean (a running average in evaluation) and add a bias.

    A bias in the previous layer has no effect. `momentum` is the weight of the newest batch in the average.
    """

    def __init__(self, features: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))

    def forward(self, x: Float[Tensor, "batch features ..."]) -> Float[Tensor, "batch features ..."]:
        mean = self.running_mean
        if self.training:
            mean = x.mean((0, *range(2, x.ndim)))
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), self.momentum)
        return x + (self.bias - mean).view(-1, *[1] * (x.ndim - 2))
