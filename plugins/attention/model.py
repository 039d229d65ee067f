"""Implements scaled dot-product attention (equation 1) and multi-head attention."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def scaled_dot_product_attention(
    q: Float[Tensor, "*#batch queries dim"],
    k: Float[Tensor, "*#batch keys dim"],
    v: Float[Tensor, "*#batch keys values"],
    *,
    mask: Bool[Tensor, "*#batch #queries #keys"] | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "*batch queries values"]:
    """Equation 1: softmax(q kᵀ / √dim) v. `attention_weights` describes mask, causal and scale."""
    return attention_weights(q, k, mask=mask, causal=causal, scale=scale) @ v


def attention_weights(
    q: Float[Tensor, "*#batch queries dim"],
    k: Float[Tensor, "*#batch keys dim"],
    *,
    mask: Bool[Tensor, "*#batch #queries #keys"] | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "*batch queries keys"]:
    """Attention weights: the softmax in equation 1, taken over the keys for each query.

    mask    True where a query may attend to a key; the result for a query without any visible key is zero
    causal  no query attends to a later position. The last query is aligned with the last key (lower right),
            as in decoding with a cache, where the queries are the newest positions
    scale   factor on the scores, by default 1 / √dim
    """
    queries, keys, dim = q.shape[-2], *k.shape[-2:]
    scores = (q * (dim**-0.5 if scale is None else scale)) @ k.mT
    bias = None
    if causal:
        bias = scores.new_full((queries, keys), -torch.inf).triu_(keys - queries + 1)
    if mask is not None:
        hidden = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -torch.inf)
        bias = hidden if bias is None else bias + hidden
    if bias is None:
        return scores.softmax(-1)
    if mask is None and queries <= keys:
        return scores.add_(bias).softmax(-1)  # every query has a visible key
    # A row whose scores are all -inf would be NaN, and so would the gradient.
    blind = bias.amax(-1, keepdim=True) == -torch.inf
    return (scores + bias.masked_fill(blind, 0)).softmax(-1).masked_fill(blind, 0)


class MultiHeadAttention(nn.Module):
    """Section 3.2.2: head_i = attention(x W_iQ, c W_iK, c W_iV), result = concat(head_1, ..., head_h) W_O.

    One projection holds the matrices of all heads, so one matrix multiplication serves all heads.

    model    size of `x` and of the result, a multiple of `heads` (else ValueError)
    context  size of the other sequence's vectors, for cross-attention
    bias     whether projections have a bias; they have none in the paper, but often do in later models
    """

    def __init__(self, model: int, heads: int, *, context: int | None = None, bias: bool = False) -> None:
        super().__init__()
        if model % heads:
            raise ValueError(f"a model of width {model} cannot be split over {heads} heads")
        self.heads = heads
        self.query = nn.Linear(model, model, bias=bias)
        self.key = nn.Linear(context or model, model, bias=bias)
        self.value = nn.Linear(context or model, model, bias=bias)
        self.output = nn.Linear(model, model, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "*batch queries model"],
        context: Float[Tensor, "*batch keys context"] | None = None,
        *,
        mask: Bool[Tensor, "*#batch #queries #keys"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "*batch queries model"]:
        """`x` attends to `context`, or to itself. `mask` and `causal` apply to every head."""
        context = x if context is None else context
        projected = self.query(x), self.key(context), self.value(context)
        q, k, v = (split_heads(vectors, self.heads) for vectors in projected)
        mask = None if mask is None else mask.unsqueeze(-3)
        return self.output(merge_heads(scaled_dot_product_attention(q, k, v, mask=mask, causal=causal)))


def split_heads(
    x: Float[Tensor, "*batch tokens model"], heads: int
) -> Float[Tensor, "*batch {heads} tokens dim"]:
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def merge_heads(x: Float[Tensor, "*batch heads tokens dim"]) -> Float[Tensor, "*batch tokens model"]:
    return x.transpose(-3, -2).flatten(-2)
