"""Implements grouped attention, and the conversion of a multi-head model to fewer key-value heads."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..attention import merge_heads, split_heads

How = Literal["mean", "first", "random"]


def grouped_attention(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch groups keys dim"],
    v: Float[Tensor, "batch groups keys values"],
    *,
    mask: Bool[Tensor, "*#masked #queries #keys"] | None = None,
    bias: Float[Tensor, "*#biased #heads queries keys"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch heads queries values"]:
    """Section 2.2: attention in which each group of `heads // groups` query heads shares one key-value head.

    A group's query heads are treated as more queries of one head, so keys and values need not be copied.
    Repeating keys and values for every head would lose the benefit of sharing.

    mask    True where a query may attend; each query needs at least one key
    bias    added to the scores (T5's relative positions)
    causal  no query attends to a later key; the last query is aligned with the last key

    Raises ValueError if `heads` is not a multiple of `groups`.
    """
    (heads, queries, dim), (groups, keys) = q.shape[1:], k.shape[1:3]
    if heads % groups:
        raise ValueError(f"{heads} heads cannot be split into {groups} groups")
    shared = (
        (q * dim**-0.5).unflatten(1, (groups, -1)).flatten(2, 3)
    )  # batch groups (heads/groups queries) dim
    scores = (shared @ k.mT).unflatten(2, (-1, queries)).flatten(1, 2)  # batch heads queries keys
    if bias is not None:
        scores = scores + bias
    if causal and queries > 1:
        seen = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        mask = seen if mask is None else mask & seen
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1).unflatten(1, (groups, -1)).flatten(2, 3)
    return (weights @ v).unflatten(2, (-1, queries)).flatten(1, 2)


class GroupedQueryAttention(nn.Module):
    """Self-attention with `groups` heads of keys and values. This is multi-head attention if `groups` equals
    `heads`, and multi-query attention if `groups` is 1.

    model  hidden size; must be a multiple of `heads`, and `heads` a multiple of `groups` (else ValueError)
    dim    size of a head (default: model / heads)
    """

    def __init__(
        self, model: int, heads: int, groups: int, *, dim: int | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        if (dim is None and model % heads) or heads % groups:
            raise ValueError(f"a model of width {model} has no {heads} heads in {groups} groups")
        dim = dim or model // heads
        self.heads = heads
        self.groups = groups
        self.query = nn.Linear(model, heads * dim, bias=bias)
        self.key = nn.Linear(model, groups * dim, bias=bias)
        self.value = nn.Linear(model, groups * dim, bias=bias)
        self.output = nn.Linear(heads * dim, model, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        *,
        mask: Bool[Tensor, "*#masked #tokens #tokens"] | None = None,
        bias: Float[Tensor, "*#biased #heads tokens tokens"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "batch tokens model"]:
        """See `grouped_attention`."""
        q, k, v = self.project(x)
        return self.output(merge_heads(grouped_attention(q, k, v, mask=mask, bias=bias, causal=causal)))

    def project(
        self, x: Float[Tensor, "batch tokens model"]
    ) -> tuple[
        Float[Tensor, "batch heads tokens dim"],
        Float[Tensor, "batch groups tokens dim"],
        Float[Tensor, "batch groups tokens dim"],
    ]:
        """Returns queries for all heads, and keys and values for each group."""
        k, v = (split_heads(project(x), self.groups) for project in (self.key, self.value))
        return split_heads(self.query(x), self.heads), k, v


@torch.no_grad()
def convert(
    attention: GroupedQueryAttention,
    groups: int,
    how: How = "mean",
    *,
    generator: torch.Generator | None = None,
) -> GroupedQueryAttention:
    """Section 2.1: convert an attention layer to fewer heads of keys and values.

    mean    averages the projections of each group's heads
    first   takes the first head of each group
    random  initialises like `nn.Linear`, with `generator`

    The query and output layers are unchanged. Raises ValueError if the old number of heads is not a
    multiple of `groups`.
    """
    old = attention.groups
    if old % groups:
        raise ValueError(f"{old} heads of keys cannot be split into {groups} groups")
    model = attention.query.in_features
    dim = attention.query.out_features // attention.heads
    with torch.device("meta"):
        bias = attention.query.bias is not None
        converted = GroupedQueryAttention(model, attention.heads, groups, dim=dim, bias=bias)
    weights = dict(attention.state_dict())
    for name, weight in weights.items():
        if name.startswith(("key.", "value.")):
            together = weight.unflatten(0, (groups, old // groups, dim))
            if how == "random":
                fresh = torch.empty_like(together[:, 0], device="cpu")
                pooled = fresh.uniform_(-1, 1, generator=generator).to(weight) * model**-0.5
            else:
                pooled = together.mean(1) if how == "mean" else together[:, 0]
            weights[name] = pooled.flatten(0, 1)
        weights[name] = weights[name].clone()
    converted.load_state_dict(weights, assign=True)
    for weight in converted.parameters():
        weight.requires_grad_()
    return converted
