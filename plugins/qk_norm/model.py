"""Implements section 3: cosine attention with a learned scale, and a multi-head attention layer that uses it.

Dimensions: batch and heads (any leading axes), queries, keys, dim (of a head).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..attention import attention_weights, merge_heads, split_heads
from ..rope import RotaryAttention

Heads = Float[Tensor, "batch heads tokens dim"]
Scale = Float[Tensor, " 1"]


def line_by_line(q: Heads, k: Heads, v: Heads, g: Scale, *, causal: bool = False) -> Heads:
    """Equations 5 to 7: softmax(g q̂ k̂ᵀ) v, where a hat marks a unit vector."""
    q = q / q.square().sum(-1, keepdim=True).sqrt()
    k = k / k.square().sum(-1, keepdim=True).sqrt()
    return attention_weights(g * q, k, causal=causal, scale=1.0) @ v


def normalised(x: Heads, scale: Tensor | float = 1.0) -> Heads:
    """Rescale vectors to length `scale`. Zero vectors stay zero. Half precision is computed in float32."""
    single = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=single)
    return (x * (scale / length.clamp_min(1e-12))).to(x.dtype)


def qk_norm_attention(q: Heads, k: Heads, v: Heads, g: Scale, *, causal: bool = False) -> Heads:
    """Equations 5 to 7 in one attention kernel, where g scales the queries and replaces 1 / √dim."""
    return F.scaled_dot_product_attention(normalised(q, g), normalised(k), v, is_causal=causal, scale=1.0)


def first_scale(tokens: int) -> float:
    """The initial g: log2(L² - L), where L is the sequence length (in the paper, the 97.5th percentile).

    A single token attends only to itself at any scale, so L = 1 gets the scale of L = 2.
    """
    longer = max(tokens, 2)
    return math.log2(longer**2 - longer)


class QKNormAttention(RotaryAttention):
    """Rotary self-attention with cosines as scores, and one learned scale per layer.

    tokens  typical sequence length, which gives the initial scale
    """

    def __init__(
        self, model: int, heads: int, *, tokens: int, base: float = 10000.0, bias: bool = False
    ) -> None:
        super().__init__(model, heads, base=base, bias=bias)
        self.g = nn.Parameter(torch.full((1,), first_scale(tokens)))

    def forward(
        self, x: Float[Tensor, "batch tokens model"], *, first: int = 0, causal: bool = False
    ) -> Float[Tensor, "batch tokens model"]:
        """`first` is the position of the first token."""
        q, k, v = (split_heads(project(x), self.heads) for project in (self.query, self.key, self.value))
        single = torch.promote_types(x.dtype, torch.float32)
        q, k = self.turn(q, k, first + torch.arange(x.shape[-2], device=x.device, dtype=single))
        return self.output(merge_heads(self.attend(q, k, v, causal=causal)))

    def attend(self, q: Heads, k: Heads, v: Heads, *, causal: bool) -> Heads:
        return qk_norm_attention(q, k, v, self.g, causal=causal)
