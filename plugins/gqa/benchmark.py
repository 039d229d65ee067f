"""Times attention from one new token to a long KV cache. Memory bandwidth limits its speed."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import grouped_attention


def repeating(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Repeats keys and values for every query head at each token, as many released models do."""
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    return ((q @ k.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v


def all_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-head attention with a cache of keys and values for every head."""
    return F.scaled_dot_product_attention(q, k, v)


def keep_all_heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    times = q.shape[1] // k.shape[1]
    return q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def batched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Treats the queries of a group's heads as several queries of one head."""
    shared = q.unflatten(1, (k.shape[1], -1)).flatten(2, 3)
    return F.scaled_dot_product_attention(shared, k, v).unflatten(2, (-1, 1)).flatten(1, 2)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, heads, dim = bench.pick(smoke=(2, 4, 8), quick=(1, 32, 64), full=(4, 32, 128))
    for tokens in bench.pick(smoke=(7,), quick=(512, 4096), full=(1024, 8192)):
        for groups in bench.pick(smoke=(2,), quick=(1, 4, 8), full=(1, 4, 8, 32)):

            def inputs(g: torch.Generator, tokens: int = tokens, groups: int = groups) -> tuple[Tensor, ...]:
                k, v = torch.randn(2, batch, groups, tokens, dim, generator=g)
                return torch.randn(batch, heads, 1, dim, generator=g), k, v

            cost = Cost.attention(
                batch, heads, 1, dim, itemsize=bench.dtype.itemsize, keys=tokens, kv_heads=groups
            )
            yield Case(
                name="one token",
                axes={"tokens": tokens, "groups": groups},
                inputs=inputs,
                variants=(
                    Variant(name="repeated for every head", role="naive", call=repeating),
                    Variant(name="all heads", role="naive", call=all_heads, prepare=keep_all_heads),
                    Variant(name="torch enable_gqa", role="strong", call=fused),
                    Variant(name="torch, heads as queries", role="strong", call=batched),
                    Variant(name="grouped_attention", role="paper", call=grouped_attention),
                ),
                cost={"forward": cost["forward"]},
            )
