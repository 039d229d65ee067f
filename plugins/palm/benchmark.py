"""Times training steps with parallel and serial blocks, and decoding one token after a long text."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..gqa import grouped_attention
from ..rope import phases, rotate
from .experiment import SerialBlock
from .model import ParallelBlock

Weights = Mapping[str, Tensor]
State = dict[str, Any]  # "kv": (2, batch, groups, room, dim), and "length", tokens so far


def parts_of(weights: Weights, widths: tuple[int, ...]) -> list[Tensor]:
    """The matrices that are stacked in `read`."""
    return list(weights["read.weight"].split(widths))


def heads_of(x: Tensor, dim: int) -> Tensor:
    return x.unflatten(-1, (-1, dim)).transpose(1, 2)


def turned(x: Tensor, dim: int, first: int) -> Tensor:
    places = first + torch.arange(x.shape[1], device=x.device)
    return rotate(heads_of(x, dim), phases(places.to(torch.promote_types(x.dtype, torch.float32)), dim))


def one_by_one(weights: Weights, x: Tensor, *, widths: tuple[int, ...], dim: int) -> Tensor:
    """Section 2's equation, with a multiplication for each weight matrix and attention from its formula."""
    normed = F.layer_norm(x, x.shape[-1:], weights["norm.weight"])
    q, k, v, gate, up = (normed @ matrix.T for matrix in parts_of(weights, widths))
    q, k, v = turned(q, dim, 0), turned(k, dim, 0), heads_of(v, dim)
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
    scores = (q @ k.mT / math.sqrt(dim)).masked_fill(later, -torch.inf)
    attended = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    out, down = weights["write.weight"].split((widths[0], widths[-1]), 1)
    return x + attended @ out.T + (F.silu(gate) * up) @ down.T


def fused(weights: Weights, x: Tensor, *, widths: tuple[int, ...], dim: int) -> Tensor:
    normed = F.layer_norm(x, x.shape[-1:], weights["norm.weight"])
    q, k, v, gate, up = F.linear(normed, weights["read.weight"]).split(widths, -1)
    q, k, v = turned(q, dim, 0), turned(k, dim, 0), heads_of(v, dim)
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    inner = torch.cat((attended.transpose(1, 2).flatten(2), F.silu(gate) * up), -1)
    return x + F.linear(inner, weights["write.weight"])


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def with_cache(
    weights: Weights, state: State, x: Tensor, *, widths: tuple[int, ...], dim: int, attend: Attend
) -> tuple[Tensor, State]:
    """Decode one token. The cache may hold copies of its single key-value head."""
    normed = F.layer_norm(x, x.shape[-1:], weights["norm.weight"])
    q, k, v, gate, up = F.linear(normed, weights["read.weight"]).split(widths, -1)
    kv, end = state["kv"], state["length"] + 1
    kv[0, :, :, end - 1 : end] = turned(k, dim, end - 1)
    kv[1, :, :, end - 1 : end] = heads_of(v, dim)
    attended = attend(turned(q, dim, end - 1), kv[0, :, :, :end], kv[1, :, :, :end])
    inner = torch.cat((attended.transpose(1, 2).flatten(2), F.silu(gate) * up), -1)
    return x + F.linear(inner, weights["write.weight"]), {"kv": kv, "length": end}


def all_heads(weights: Weights, state: State, x: Tensor, *, heads: int) -> tuple[Any, ...]:
    return weights, {**state, "kv": state["kv"].repeat(1, 1, heads, 1, 1)}, x


def go_on(block: ParallelBlock, state: State, x: Tensor) -> tuple[Tensor, State]:
    found = block(x, state["kv"], state["length"])
    return found, {**state, "length": state["length"] + 1}


def train_once(weights: Weights, x: Tensor, *, block: nn.Module) -> dict[str, Any]:
    """Forward and backward pass through one block, which uses its own weights instead of `weights`."""
    block.zero_grad()
    block(x.to(next(block.parameters()))).square().mean().backward()
    return {"reached": True, "steps": 1}


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    model, heads, dim, tokens = bench.pick(
        smoke=(8, 2, 4, 5), quick=(384, 6, 64, 128), full=(1024, 8, 128, 512)
    )
    hidden, itemsize = 4 * model, bench.dtype.itemsize
    widths = heads * dim, dim, dim, hidden, hidden
    matrices = model * (sum(widths) + heads * dim + hidden)
    make = partial(ParallelBlock, model, heads, dim, 1, hidden)
    options = {"widths": widths, "dim": dim}
    pairs = tokens * (tokens + 1) // 2
    yield Case.of_module(
        make,
        name="a block",
        axes={"tokens": tokens},
        inputs=lambda g: (torch.randn(1, tokens, model, generator=g),),
        variants=(
            Variant(name="matrix by matrix", role="naive", call=partial(one_by_one, **options)),
            Variant(name="torch SDPA, fused products", role="strong", call=partial(fused, **options)),
            Variant.of_module(make, name="ParallelBlock", role="paper"),
        ),
        cost=Cost.products(
            2 * tokens * matrices + 4 * pairs * heads * dim,
            (matrices + model + 2 * tokens * model) * itemsize,
        ),
    )
    yield in_both_orders(bench, model, heads, dim, tokens)
    for before in bench.pick(smoke=(7,), quick=(512, 4096), full=(2048, 8192)):
        yield one_token(bench, make, options, heads, before, matrices)


def in_both_orders(bench: Bench, model: int, heads: int, dim: int, tokens: int) -> Case:
    """Serial and parallel blocks give different results, so this case only compares their time."""

    def step(block: type[nn.Module]) -> Callable[..., dict[str, Any]]:
        made = block(model, heads, dim, 1, 4 * model).to(bench.device, bench.dtype)
        return partial(train_once, block=made)

    return Case.of_module(
        partial(ParallelBlock, model, heads, dim, 1, 4 * model),
        name="blocks, a training step",
        axes={"tokens": tokens},
        inputs=lambda g: (torch.randn(1, tokens, model, generator=g),),
        variants=(
            Variant(name="serial, fused", role="naive", call=step(SerialBlock)),
            Variant(name="serial, fused (again)", role="strong", call=step(SerialBlock)),
            Variant(name="parallel", role="paper", call=step(ParallelBlock)),
        ),
        cost={"until": None},
    )


def one_token(
    bench: Bench, make: partial[ParallelBlock], options: Any, heads: int, before: int, matrices: int
) -> Case:
    model, dim = make.args[0], options["dim"]
    room = before + 4

    def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Treat the query heads as several queries of the single key-value head."""
        return F.scaled_dot_product_attention(q.flatten(1, 2)[:, None], k, v).transpose(1, 2)

    return Case.of_module(
        make,
        name="one token",
        axes={"tokens before": before},
        inputs=lambda g: (
            {"kv": torch.randn(2, 1, 1, room, dim, generator=g), "length": before},
            torch.randn(1, 1, model, generator=g),
        ),
        variants=(
            Variant(
                name="a cache of all heads",
                role="naive",
                call=partial(with_cache, **options, attend=F.scaled_dot_product_attention),
                prepare=partial(all_heads, heads=heads),
            ),
            Variant(
                name="torch SDPA, one head", role="strong", call=partial(with_cache, **options, attend=torchs)
            ),
            Variant(
                name="grouped_attention",
                role="strong",
                call=partial(with_cache, **options, attend=grouped_attention),
            ),
            Variant.of_module(make, go_on, name="ParallelBlock", role="paper"),
        ),
        cost={
            "decode": Cost(
                flops=2 * matrices + 4 * (before + 1) * heads * dim,
                bytes=(matrices + 2 * (before + 1) * dim) * bench.dtype.itemsize,
            )
        },
    )
