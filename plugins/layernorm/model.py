"""Implements equations 3 and 4 as written and with a hand-written gradient, and the layer.

Dimensions: batch (any leading axes), features (H in the paper).
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Vectors = Float[Tensor, "*batch features"]
Features = Float[Tensor, " features"]


def line_by_line(x: Vectors, weight: Features, bias: Features, *, eps: float = 1e-5) -> Vectors:
    """Equation 3, then the gain (`weight`) and bias of equation 4. `eps` is not in the paper."""
    mean = x.mean(-1, keepdim=True)
    std = torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + eps)
    return weight / std * (x - mean) + bias


def layer_norm(x: Vectors, weight: Features, bias: Features, *, eps: float = 1e-5) -> Vectors:
    """A faster layer normalisation. Half-precision inputs are normalised in float32.

    Supports double backward. Use `line_by_line` with the transforms of `torch.func`.
    """
    return _LayerNorm.apply(x, weight, bias, eps)


class _LayerNorm(torch.autograd.Function):
    """Saves x and two numbers per vector for the gradient, where autograd would save three tensors of x's
    size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean = x.mean(-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        centred = x - mean
        square = torch.linalg.vector_norm(centred, dim=-1, keepdim=True).square()
        rstd = torch.rsqrt(square / x.shape[-1] + eps)
        ctx.eps = eps
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        y = torch.addcmul(bias, centred.mul_(rstd), weight)
        # In torch 2.11, the compiler loses all gradients after a final `to` that has no effect.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """For each normalised vector, subtracts from the gradient its mean and its projection onto the
        vector, and divides by the standard deviation."""
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself is differentiated
            _, pull_back = torch.func.vjp(partial(line_by_line, eps=ctx.eps), x, weight, bias)
            return *pull_back(gradient), None
        gradient, gain = gradient.to(mean.dtype), weight.to(mean.dtype)
        centred = x - mean
        product = gradient * centred
        common = (gradient @ gain)[..., None] / -len(gain)
        along = (product @ gain)[..., None] * rstd.square() / -len(gain)
        for_weight, for_bias = (t.reshape(-1, len(gain)).sum(0) for t in (product.mul_(rstd), gradient))
        for_x = centred.mul_(along).addcmul_(gradient, gain).add_(common).mul_(rstd)
        return for_x.to(x.dtype), for_weight.to(weight.dtype), for_bias.to(bias.dtype), None


class LayerNorm(nn.Module):
    """`layer_norm` with a gain and a bias, named as in `nn.LayerNorm`. Inference is the same as training."""

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Vectors) -> Vectors:
        return layer_norm(x, self.weight, self.bias, eps=self.eps)
