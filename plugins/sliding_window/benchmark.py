"""Times sliding-window attention on a whole text, and for one token after a long text."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..gqa import grouped_attention
from .model import window_attention

State = dict[str, Any]  # "kv": (2, batch, groups, slots, dim), and "length": tokens so far


def band(tokens: int, window: int, device: torch.device) -> Tensor:
    place = torch.arange(tokens, device=device)
    return (place <= place[:, None]) & (place > place[:, None] - window)


def masked(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Compute all pairs, and mask those outside the band."""
    return grouped_attention(q, k, v, mask=band(q.shape[2], window, q.device))


def masked_fused(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    mask = band(q.shape[2], window, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


def block_by_block(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """torch's fused attention for `window` queries at a time, with the keys that any of them attends to."""
    found = []
    for start in range(0, q.shape[2], window):
        queries = torch.arange(start, min(start + window, q.shape[2]), device=q.device)[:, None]
        seen = slice(max(start - window + 1, 0), start + len(queries))
        keys = torch.arange(seen.start, seen.stop, device=q.device)
        mask = (keys <= queries) & (keys > queries - window)
        some = q[:, :, start : seen.stop]
        found.append(
            F.scaled_dot_product_attention(
                some, k[:, :, seen], v[:, :, seen], attn_mask=mask, enable_gqa=True
            )
        )
    return torch.cat(found, 2)


def flex(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """FlexAttention, which skips blocks outside the band."""
    mask = flex_mask(q.shape[2], window, q.device)
    return compiled_flex()(q, k, v, block_mask=mask, enable_gqa=True)


@cache
def compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@cache
def flex_mask(tokens: int, window: int, device: torch.device) -> object:
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(
        lambda _batch, _head, query, key: (key <= query) & (key > query - window),
        None,
        None,
        tokens,
        tokens,
        device=device,
    )


def growing(q: Tensor, state: State, new: Tensor, window: int) -> tuple[Tensor, State]:
    """Copy the cache into a longer one for each token, and mask tokens before the window."""
    kv = torch.cat((state["kv"], new), 3)
    keys = torch.arange(kv.shape[3], device=q.device)
    found = grouped_attention(q, kv[0], kv[1], mask=(keys >= kv.shape[3] - window)[None])
    return found, {"kv": kv, "length": state["length"] + 1}


def with_room(q: Tensor, state: State, new: Tensor, window: int) -> tuple[Any, ...]:
    room = state["kv"].new_zeros(*state["kv"].shape[:3], 8, state["kv"].shape[4])
    return q, {"kv": torch.cat((state["kv"], room), 3), "length": state["length"]}, new, window


def sliced(q: Tensor, state: State, new: Tensor, window: int) -> tuple[Tensor, State]:
    """Write into a preallocated cache of the whole text, and read the newest window."""
    kv, end = state["kv"], state["length"] + 1
    kv[:, :, :, end - 1 : end] = new
    k, v = kv[:, :, :, max(end - window, 0) : end]
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True), {"kv": kv, "length": end}


def into_slots(q: Tensor, state: State, new: Tensor, window: int) -> tuple[Any, ...]:
    length = state["length"]
    newest = torch.arange(length - window, length)
    kv = torch.empty_like(state["kv"][:, :, :, :window])
    kv[:, :, :, newest % window] = state["kv"][:, :, :, newest]
    return q, {"kv": kv, "length": length}, new, window


def rolling(q: Tensor, state: State, new: Tensor, window: int) -> tuple[Tensor, State]:
    kv, length = state["kv"], state["length"]
    kv[:, :, :, length % window] = new[:, :, :, 0]
    return grouped_attention(q, kv[0], kv[1]), {"kv": kv, "length": length + 1}


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    heads, groups, dim, window = bench.pick(
        smoke=(4, 2, 8, 4), quick=(8, 2, 64, 256), full=(32, 8, 128, 4096)
    )
    itemsize = bench.dtype.itemsize
    for tokens in bench.pick(smoke=(11,), quick=(512, 1024, 2048), full=(8192, 16_384)):
        yield Case(
            name="a whole text",
            axes={"tokens": tokens},
            inputs=lambda g, tokens=tokens: (
                torch.randn(1, heads, tokens, dim, generator=g),
                torch.randn(1, groups, tokens, dim, generator=g),
                torch.randn(1, groups, tokens, dim, generator=g),
                window,
            ),
            variants=(
                Variant(name="mask over all pairs", role="naive", call=masked),
                Variant(name="torch SDPA, masked", role="strong", call=masked_fused),
                Variant(name="torch SDPA, block by block", role="strong", call=block_by_block),
                # On a CPU, compiling takes longer than running, and there is no backward pass.
                Variant(name="FlexAttention", role="compiled", call=flex, needs=bench.needs("cuda")),
                Variant(name="blocks of the band", role="paper", call=window_attention),
            ),
            cost=Cost.attention(
                1, heads, tokens, dim, itemsize=itemsize, kv_heads=groups, causal=True, window=window
            ),
            gradients=(0, 1, 2),
        )
    for before in bench.pick(smoke=(9,), quick=(1024, 4096), full=(8192, 32_768)):
        cost = Cost.attention(1, heads, 1, dim, itemsize=itemsize, kv_heads=groups, keys=window)
        yield Case(
            name="one token",
            axes={"tokens before": before},
            inputs=lambda g, before=before: (
                torch.randn(1, heads, 1, dim, generator=g),
                {"kv": torch.randn(2, 1, groups, before, dim, generator=g), "length": before},
                torch.randn(2, 1, groups, 1, dim, generator=g),
                window,
            ),
            variants=(
                Variant(name="a growing cache, masked", role="naive", call=growing),
                Variant(name="torch SDPA, a long cache", role="strong", call=sliced, prepare=with_room),
                Variant(name="rolling cache", role="paper", call=rolling, prepare=into_slots),
            ),
            cost={"decode": cost["forward"]},
            state=1,
        )
