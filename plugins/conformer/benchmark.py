"""Times attention with relative positions, scored pair by pair or by one multiplication for all distances."""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import RelativeAttention, distances, shift

Weights = Mapping[str, Tensor]


def heads_of(w: Weights, x: Tensor, heads: int) -> tuple[Tensor, ...]:
    return tuple(
        F.linear(x, w[f"linear_{n}.weight"], w[f"linear_{n}.bias"]).unflatten(2, (heads, -1)).transpose(1, 2)
        for n in "qkv"
    )


def far_of(w: Weights, x: Tensor, heads: int) -> Tensor:
    far = F.linear(distances(x.shape[1], x.shape[2]).to(x), w["linear_pos.weight"])
    return far.unflatten(1, (heads, -1)).transpose(0, 1)


def pair_by_pair(w: Weights, x: Tensor, heads: int) -> Tensor:
    """Gather the position vector of each pair of query and key."""
    q, k, v = heads_of(w, x, heads)
    time = torch.arange(x.shape[1], device=x.device)
    index = time[None] - time[:, None] + x.shape[1] - 1
    vectors = far_of(w, x, heads)[:, index]  # heads, query, key, head
    contents = (q + w["pos_bias_u"][:, None]) @ k.mT
    places = torch.einsum("bhid,hijd->bhij", q + w["pos_bias_v"][:, None], vectors)
    weights = ((contents + places) / math.sqrt(q.shape[3])).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(2), w["linear_out.weight"], w["linear_out.bias"])


def gathered(w: Weights, x: Tensor, heads: int) -> Tensor:
    """Score all distances with one matrix multiplication, and gather the score of each pair."""
    q, k, v = heads_of(w, x, heads)
    time = torch.arange(x.shape[1], device=x.device)
    index = (time[None] - time[:, None] + x.shape[1] - 1).expand(*q.shape[:2], -1, -1)
    places = ((q + w["pos_bias_v"][:, None]) @ far_of(w, x, heads).mT).gather(3, index)
    contents = (q + w["pos_bias_u"][:, None]) @ k.mT
    weights = ((contents + places) / math.sqrt(q.shape[3])).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(2), w["linear_out.weight"], w["linear_out.bias"])


def shifted(w: Weights, x: Tensor, heads: int) -> Tensor:
    """Like `gathered`, with a shift instead of the gather."""
    q, k, v = heads_of(w, x, heads)
    places = shift((q + w["pos_bias_v"][:, None]) @ far_of(w, x, heads).mT)
    contents = (q + w["pos_bias_u"][:, None]) @ k.mT
    weights = ((contents + places) / math.sqrt(q.shape[3])).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(2), w["linear_out.weight"], w["linear_out.bias"])


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((2, 5, 8, 2),),
        quick=((4, 100, 144, 4), (4, 400, 144, 4)),
        full=((4, 100, 512, 8), (4, 400, 512, 8), (4, 1600, 512, 8)),
    )
    for batch, time, width, heads in sizes:
        make = partial(RelativeAttention, width, heads)
        tokens = batch * time
        products = 4 * tokens * width**2 + (2 * time - 1) * width**2
        products += batch * time * width * (2 * time + 2 * time - 1)
        moved = (5 * width**2 + 2 * tokens * width) * bench.dtype.itemsize
        yield Case.of_module(
            make,
            name="relative attention",
            axes={"time": time, "width": width},
            inputs=lambda g, batch=batch, time=time, width=width: (
                torch.randn(batch, time, width, generator=g),
            ),
            variants=(
                Variant(name="one vector per pair", role="naive", call=partial(pair_by_pair, heads=heads)),
                Variant(name="one product, gathered", role="strong", call=partial(gathered, heads=heads)),
                Variant(name="one product, shifted", role="strong", call=partial(shifted, heads=heads)),
                Variant.of_module(make, name="shifted, fused attention", role="paper"),
            ),
            cost=Cost.products(2 * products, moved),
            gradients=(0, 1),
        )
