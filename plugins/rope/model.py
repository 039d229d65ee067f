"""The rotation of equation 15 as written and as a complex multiplication, and rotary attention.

Dimensions: batch and heads (any leading axes), tokens, dim (of a head, even), pairs (dim / 2).
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ..attention import MultiHeadAttention, merge_heads, scaled_dot_product_attention, split_heads

Positions = Float[Tensor, " tokens"] | Int[Tensor, " tokens"]
FreqsCis = Complex[Tensor, "tokens pairs"]


def line_by_line(
    x: Float[Tensor, "batch heads tokens dim"], freqs_cis: FreqsCis
) -> Float[Tensor, "batch heads tokens dim"]:
    """Equation 15: R_m x for token m. The block-diagonal R_m rotates coordinates 2j and 2j + 1 by m θ_j."""
    c, s = freqs_cis.real.to(x.dtype), freqs_cis.imag.to(x.dtype)
    turn = torch.stack((c, -s, s, c), -1).unflatten(-1, (2, 2))  # (tokens, pairs, 2, 2)
    rotation = torch.stack([torch.block_diag(*token) for token in turn])  # (tokens, dim, dim)
    return (rotation @ x.permute(2, 3, 0, 1).flatten(2)).unflatten(2, x.shape[:2]).permute(2, 3, 0, 1)


def phases(positions: Positions, dim: int, *, base: float = 10000.0) -> FreqsCis:
    """Points on the unit circle, e^(i m θ_j) with θ_j = base^(-2j / dim) (section 3.2.2), for `rotate`.

    positions  position m of each token. float64 positions give complex128. Others are computed in float32,
               which loses precision for positions in the millions
    dim        size of a head. Raises ValueError if it is odd
    """
    if dim % 2:
        raise ValueError(f"rotary positions need an even head size, not {dim}")
    positions = positions.to(torch.promote_types(positions.dtype, torch.float32))
    theta = base ** (torch.arange(0, dim, 2, device=positions.device, dtype=positions.dtype) / -dim)
    angles = positions[:, None] * theta
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Float[Tensor, "*batch tokens dim"], freqs_cis: FreqsCis) -> Float[Tensor, "*batch tokens dim"]:
    """Equation 15: coordinates 2j and 2j + 1 of token m, as one complex number, times e^(i m θ_j).

    Computes in float32 or better. Llama pairs coordinate j with j + dim / 2 instead, which is the same model
    with the coordinates of queries and keys in another order (`halves_to_pairs`).
    """
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)).contiguous()
    points = torch.view_as_complex(pairs)
    return torch.view_as_real(points * freqs_cis.to(points.dtype)).flatten(-2).to(x.dtype)


def halves_to_pairs(dim: int) -> Int[Tensor, " dim"]:
    """Indices that reorder the last axis from Llama's order of coordinates to the paper's."""
    return torch.arange(dim).unflatten(0, (2, -1)).T.flatten()


def sines(freqs_cis: FreqsCis) -> Float[Tensor, "tokens dim"]:
    """The Transformer's position encoding (1706.03762, section 3.5): sine and cosine of each angle."""
    return torch.stack((freqs_cis.imag, freqs_cis.real), -1).flatten(-2)


class RotaryAttention(MultiHeadAttention):
    """Self-attention with rotated queries and keys (equation 16). Values are not rotated.

    base  base of the angles θ_j; a larger base makes the slowest pair rotate more slowly
    """

    def __init__(self, model: int, heads: int, *, base: float = 10000.0, bias: bool = False) -> None:
        super().__init__(model, heads, bias=bias)
        self.base = base

    def forward(
        self, x: Float[Tensor, "*batch tokens model"], *, first: int = 0, causal: bool = False
    ) -> Float[Tensor, "*batch tokens model"]:
        """`first` is the position of the first token."""
        q, k, v = (split_heads(project(x), self.heads) for project in (self.query, self.key, self.value))
        single = torch.promote_types(x.dtype, torch.float32)
        q, k = self.turn(q, k, first + torch.arange(x.shape[-2], device=x.device, dtype=single))
        return self.output(merge_heads(scaled_dot_product_attention(q, k, v, causal=causal)))

    def turn(
        self,
        q: Float[Tensor, "*batch heads tokens dim"],
        k: Float[Tensor, "*batch heads tokens dim"],
        positions: Float[Tensor, " tokens"],
    ) -> tuple[Float[Tensor, "*batch heads tokens dim"], Float[Tensor, "*batch heads tokens dim"]]:
        freqs_cis = phases(positions, q.shape[-1], base=self.base)
        return rotate(q, freqs_cis), rotate(k, freqs_cis)
