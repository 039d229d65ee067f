"""Times attention over a text in segments, and the decoding of one token after texts of several lengths."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..rope import phases, rotate
from .model import InfiniAttention, Memory, retrieve, sigma, update

Weights = Mapping[str, Tensor]
State = dict[str, Tensor]  # "k" and "v" of all tokens so far, or "M" and "z"


def projected(weights: Weights, x: Tensor, heads: int) -> list[Tensor]:
    qkv = F.linear(x, weights["qkv.weight"])
    return [part.unflatten(-1, (heads, -1)).transpose(-3, -2) for part in qkv.chunk(3, -1)]


def angles(places: Tensor, q: Tensor) -> Tensor:
    return phases(places.to(torch.promote_types(q.dtype, torch.float32)), q.shape[-1])


def finished(weights: Weights, memory: Tensor, local: Tensor) -> Tensor:
    gate = weights["gate"].sigmoid()[:, None, None]
    mixed = gate * memory + (1 - gate) * local
    return F.linear(mixed.to(local.dtype).transpose(-3, -2).flatten(-2), weights["output.weight"])


def segment_by_segment(weights: Weights, x: Tensor, *, heads: int, segment: int) -> Tensor:
    """Infini-attention (section 2) segment by segment, with torch's fused attention."""
    results, M, z = [], 0.0, 0.0
    for part in x.split(segment, 1):
        q, k, v = projected(weights, part, heads)
        freqs_cis = angles(torch.arange(part.shape[1], device=x.device), q)
        q_here, k_here = rotate(q, freqs_cis), rotate(k, freqs_cis)
        local = F.scaled_dot_product_attention(q_here, k_here, v, is_causal=True)
        found = torch.zeros_like(local)
        if results:
            found = (sigma(q) @ M) / (sigma(q) @ z[..., None]).clamp(min=1e-6)
        results.append(finished(weights, found, local))
        M, z = M + sigma(k).mT @ v.to(sigma(k).dtype), z + sigma(k).sum(-2)
    return torch.cat(results, 1)


def two_masks(weights: Weights, x: Tensor, *, heads: int, segment: int) -> Tensor:
    """Attention over all pairs of tokens: torch's fused attention within segments, and one kernel matrix
    across segments."""
    q, k, v = projected(weights, x, heads)
    place = torch.arange(x.shape[1], device=x.device)
    number = place // segment
    freqs_cis = angles(place % segment, q)
    own = (number[:, None] == number) & (place[:, None] >= place)
    local = F.scaled_dot_product_attention(rotate(q, freqs_cis), rotate(k, freqs_cis), v, attn_mask=own)
    kernel = (sigma(q) @ sigma(k).mT) * (number[:, None] > number)
    found = kernel @ v.to(kernel.dtype) / kernel.sum(-1, keepdim=True).clamp(min=1e-6)
    return finished(weights, found, local)


def token_by_token(q: Tensor, state: State, k: Tensor, v: Tensor) -> tuple[Tensor, State]:
    """Computes the weight of every stored token, then stores the new one."""
    weights = (sigma(q) * sigma(state["k"])).sum(-1, keepdim=True)
    found = (weights * state["v"]).sum(-2, keepdim=True) / weights.sum(-2, keepdim=True)
    return found, {"k": torch.cat((state["k"], k), -2), "v": torch.cat((state["v"], v), -2)}


def with_room(q: Tensor, state: State, k: Tensor, v: Tensor) -> tuple[Any, ...]:
    """A KV cache of keys after the nonlinearity, with free space for more tokens, and its current length."""
    room = {name: F.pad(kept, (0, 0, 0, 4)) for name, kept in state.items()}
    return q, {"k": sigma(room["k"]), "v": room["v"], "length": state["k"].shape[-2]}, k, v


def kernel_over_cache(q: Tensor, state: dict[str, Any], k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
    end = state["length"]
    kept, values = state["k"][..., :end, :], state["v"][..., :end, :]
    weights = sigma(q) @ kept.mT
    found = weights @ values.to(weights.dtype) / weights.sum(-1, keepdim=True)
    state["k"][..., end, :], state["v"][..., end, :] = sigma(k)[..., 0, :], v[..., 0, :]
    return found, {**state, "length": end + 1}


def compressed(q: Tensor, state: State, k: Tensor, v: Tensor) -> tuple[Any, ...]:
    kept = sigma(state["k"])
    return q, {"M": kept.mT @ state["v"].to(kept.dtype), "z": kept.sum(-2)}, k, v


def from_memory(q: Tensor, state: State, k: Tensor, v: Tensor) -> tuple[Tensor, State]:
    memory = Memory(state["M"], state["z"])
    return retrieve(memory, q), update(memory, k, v, delta=False)._asdict()


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, model, heads, segment = bench.pick(
        smoke=(2, 8, 2, 4), quick=(2, 128, 4, 128), full=(2, 1024, 16, 2048)
    )
    dim, itemsize = model // heads, bench.dtype.itemsize
    make = partial(InfiniAttention, model, heads, segment)
    options = {"heads": heads, "segment": segment}
    for tokens in bench.pick(smoke=(11,), quick=(512, 2048), full=(8192, 32_768)):
        pairs = sum(place % segment + 1 for place in range(tokens))
        # Each pair within a segment costs two multiply-adds per channel. Each token writes to M and reads
        # from it once.
        flops = 2 * batch * (4 * tokens * model**2 + 2 * pairs * model + 2 * tokens * model * dim)
        moved = 4 * model**2 + heads + 2 * batch * tokens * model
        yield Case.of_module(
            make,
            name="attention over a text",
            axes={"tokens": tokens},
            inputs=lambda g, tokens=tokens: (torch.randn(batch, tokens, model, generator=g),),
            variants=(
                Variant(name="two masks", role="naive", call=partial(two_masks, **options)),
                Variant(
                    name="segment by segment", role="strong", call=partial(segment_by_segment, **options)
                ),
                Variant.of_module(make, name="InfiniAttention", role="paper"),
            ),
            cost=Cost.products(flops, moved * itemsize),
        )
    for before in bench.pick(smoke=(7,), quick=(1024, 4096, 16_384), full=(16_384, 262_144)):
        shape = batch, heads, before, dim
        yield Case(
            name="decoding one token",
            axes={"tokens before": before},
            inputs=lambda g, shape=shape: (
                torch.randn(*shape[:2], 1, shape[3], generator=g),
                {name: torch.randn(shape, generator=g) for name in ("k", "v")},
                *torch.randn(2, *shape[:2], 1, shape[3], generator=g),
            ),
            variants=(
                Variant(name="all tokens stored", role="naive", call=token_by_token),
                Variant(
                    name="kernel attention over KV cache",
                    role="strong",
                    call=kernel_over_cache,
                    prepare=with_room,
                ),
                Variant(name="compressive memory", role="paper", call=from_memory, prepare=compressed),
            ),
            cost={
                "decode": Cost(
                    4 * batch * heads * dim * (dim + 1),
                    batch * heads * (2 * dim * (dim + 1) + 4 * dim) * itemsize,
                )
            },
            state=1,
            oracle=token_by_token,
        )
