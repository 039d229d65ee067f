"""Implements equation 4, both as written and with a fused gradient, and the layer.

Dimensions: batch (any leading axes), features (n in the paper).
"""

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Vectors = Float[Tensor, "*batch features"]
Features = Float[Tensor, " features"]


def line_by_line(x: Vectors, weight: Features, *, eps: float = 1e-6, share: float = 1.0) -> Vectors:
    """x / RMS(x), times a gain for each feature.

    eps    added to the mean square; not in the paper
    share  section 5's pRMSNorm: the mean square is taken over this fraction of the features, the first ones,
           and at least one. The paper uses 1/16
    """
    seen = x[..., : math.ceil(share * x.shape[-1])]
    rms = torch.sqrt((seen**2).mean(-1, keepdim=True) + eps)
    return x / rms * weight


def rms_norm(x: Vectors, weight: Features, *, eps: float = 1e-6, share: float = 1.0) -> Vectors:
    """A faster `line_by_line`. Half precision is computed in float32.

    Supports double backward. Use `line_by_line` for transforms of `torch.func`.
    """
    return _RMSNorm.apply(x, weight, eps, share)


class _RMSNorm(torch.autograd.Function):
    """Saves x and one number per vector for the backward pass. Autograd would save three such tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, share: float) -> Tensor:
        seen = math.ceil(share * x.shape[-1])
        single = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x[..., :seen], dim=-1, keepdim=True, dtype=single)
        scale = torch.rsqrt(norm.square() / seen + eps)
        ctx.eps, ctx.share = eps, share
        ctx.save_for_backward(x, weight, scale)
        y = x * scale * weight
        # In torch 2.11, the compiler loses all gradients if the last step is in place or an idle `to`.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient through the scale is parallel to x, and zero for features outside the mean square."""
        x, weight, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # double backward
            _, pull_back = torch.func.vjp(partial(line_by_line, eps=ctx.eps, share=ctx.share), x, weight)
            return *pull_back(gradient), None, None
        seen = math.ceil(ctx.share * len(weight))
        gradient, gain = gradient.to(scale.dtype), weight.to(scale.dtype)
        product = gradient * x
        along = (product @ gain)[..., None] * scale**3 / -seen
        for_weight = scale.reshape(-1) @ product.reshape(-1, len(gain))
        for_x = (gradient * gain).mul_(scale)
        for_x[..., :seen].addcmul_(x[..., :seen], along)
        return for_x.to(x.dtype), for_weight.to(weight.dtype), None, None


class RMSNorm(nn.Module):
    """`rms_norm` with its gain, named as in `nn.RMSNorm`."""

    def __init__(self, features: int, *, eps: float = 1e-6, share: float = 1.0) -> None:
        super().__init__()
        self.eps = eps
        self.share = share
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Vectors) -> Vectors:
        return rms_norm(x, self.weight, eps=self.eps, share=self.share)
