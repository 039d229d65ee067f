"""Implements algorithm 1 as written and with a hand-written gradient, and algorithm 2's layer.

Dimensions: batch, features (channels of an image), positions (none, or height and width).
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Batch = Float[Tensor, "batch features *positions"]
Features = Float[Tensor, " features"]


def line_by_line(x: Batch, weight: Features, bias: Features, *, eps: float = 1e-5) -> Batch:
    """Algorithm 1; `weight` is γ, `bias` is β. An image's positions count as examples (section 3.2)."""
    dims = (0, *range(2, x.ndim))
    mean = x.mean(dims, keepdim=True)
    variance = ((x - mean) ** 2).mean(dims, keepdim=True)
    normal = (x - mean) / torch.sqrt(variance + eps)
    return per_feature(weight, x) * normal + per_feature(bias, x)


def per_feature(vector: Features, x: Batch) -> Float[Tensor, " features *ones"]:
    """`vector` in a shape that broadcasts over the batch and positions of `x`."""
    return vector.view(-1, *[1] * (x.ndim - 2))


def batch_norm(x: Batch, weight: Features, bias: Features, *, eps: float) -> tuple[Batch, Features, Features]:
    """A faster algorithm 1. Returns the result and each feature's mean and (biased) variance in this batch.

    Half-precision inputs are computed in float32, and their mean and variance are float32. Mean and variance
    carry no gradient. Supports double backward. Use `line_by_line` with the transforms of `torch.func`.
    """
    return _BatchNorm.apply(x, weight, bias, eps)


class _BatchNorm(torch.autograd.Function):
    """Saves only x for the gradient, where autograd would save three tensors of its size."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims = (0, *range(2, x.ndim))
        mean = x.mean(dims, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        centred = x - mean
        variance = centred.square().mean(dims, keepdim=True)
        scale = per_feature(weight, x) * torch.rsqrt(variance + eps)
        y = torch.addcmul(per_feature(bias, x), centred, scale)
        # In torch 2.11, the compiler loses all gradients if the last operation is a `to` without effect.
        y = y if y.dtype == x.dtype else y.to(x.dtype)
        mean, variance = mean.flatten(), variance.flatten()
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        ctx.save_for_backward(x, weight, bias, mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _mean: Tensor, _variance: Tensor) -> tuple[Tensor | None, ...]:
        """Combines section 3's equations for variance, mean and x. Subtracts from the gradient its mean over
        the batch and its projection onto the normalised values, and divides by the standard deviation."""
        x, weight, bias, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself is differentiated
            _, pull_back = torch.func.vjp(partial(line_by_line, eps=ctx.eps), x, weight, bias)
            return *pull_back(gradient), None
        dims = (0, *range(2, x.ndim))
        count = x.numel() // len(weight)
        rstd = torch.rsqrt(variance + ctx.eps)
        centred = x - per_feature(mean, x)
        for_bias = gradient.sum(dims, dtype=mean.dtype)
        for_weight = (gradient * centred).sum(dims) * rstd
        scale = weight * rstd
        for_x = centred.mul_(per_feature(scale * rstd * for_weight / -count, x))
        for_x.addcmul_(gradient, per_feature(scale, x)).sub_(per_feature(scale * for_bias / count, x))
        return for_x.to(x.dtype), for_weight.to(weight.dtype), for_bias.to(bias.dtype), None


class BatchNorm(nn.Module):
    """`nn.BatchNorm1d` and `nn.BatchNorm2d` in one class, with the same names for parameters and averages.

    momentum  weight of the newest batch in the averages

    Raises ValueError in training if a feature has a single value, whose variance is 0 / 0.
    """

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Batch) -> Batch:
        if not self.training:  # algorithm 2, line 11
            single = torch.promote_types(x.dtype, torch.float32)
            scale = self.weight * torch.rsqrt(self.running_var.to(single) + self.eps)
            shift = self.bias - self.running_mean * scale
            return torch.addcmul(per_feature(shift, x), x, per_feature(scale, x)).to(x.dtype)
        count = x.numel() // x.shape[1]
        if count == 1:
            raise ValueError(f"a single value has no variance: input of shape {tuple(x.shape)}")
        y, mean, variance = batch_norm(x, self.weight, self.bias, eps=self.eps)
        # Algorithm 2, line 10: the averages use the unbiased variance, and the batch is normalised with the
        # biased one.
        for average, newest in (
            (self.running_mean, mean),
            (self.running_var, variance * count / (count - 1)),
        ):
            average.lerp_(newest.detach().to(average.dtype), self.momentum)
        return y
