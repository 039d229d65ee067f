"""Implements section 4's tanh(α x) with scale and shift, as a function and as a layer.

Dimensions: batch (any leading axes), features.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Vectors = Float[Tensor, "*batch features"]
Features = Float[Tensor, " features"]
Slope = Float[Tensor, " 1"]


def line_by_line(x: Vectors, alpha: Slope, weight: Features, bias: Features) -> Vectors:
    """Algorithm 1, where `weight` is γ and `bias` is β."""
    return weight * torch.tanh(alpha * x) + bias


def dynamic_tanh(x: Vectors, alpha: Slope, weight: Features, bias: Features) -> Vectors:
    """Algorithm 1 with a hand-written gradient. Half-precision inputs are computed in float32.

    Supports double backward. Use `line_by_line` with the transforms of `torch.func`.
    """
    return _DynamicTanh.apply(x, alpha, weight, bias)


class _DynamicTanh(torch.autograd.Function):
    """Saves x and the tanh for the gradient, where autograd would save four tensors of x's size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        single = torch.promote_types(x.dtype, torch.float32)
        squashed = (x.to(single) * alpha).tanh_()
        ctx.save_for_backward(x, alpha, weight, bias, squashed)
        y = torch.addcmul(bias.to(single), squashed, weight.to(single))
        # In torch 2.11, the compiler loses all gradients if the last operation is a `to` without effect.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, alpha, weight, bias, squashed = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself is differentiated
            _, pull_back = torch.func.vjp(line_by_line, x, alpha, weight, bias)
            return pull_back(gradient)
        gradient = gradient.to(squashed.dtype)
        features = len(weight)
        for_weight = (gradient * squashed).view(-1, features).sum(0)
        for_bias = gradient.reshape(-1, features).sum(0)
        inner = (1 - squashed.square()).mul_(gradient).mul_(weight)
        for_alpha = torch.dot(inner.flatten(), x.to(inner.dtype).flatten())[None]
        return (
            inner.mul_(alpha).to(x.dtype),
            for_alpha.to(alpha.dtype),
            for_weight.to(weight.dtype),
            for_bias.to(bias.dtype),
        )


class DynamicTanh(nn.Module):
    """`dynamic_tanh` with one slope for all features. Parameters are named as in the authors' code.

    alpha  initial slope; the default is the paper's
    """

    def __init__(self, features: int, *, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Vectors) -> Vectors:
        return dynamic_tanh(x, self.alpha, self.weight, self.bias)
