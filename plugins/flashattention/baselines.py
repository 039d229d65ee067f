"""Implements baselines for tiled attention: standard attention, and torch's fused attention."""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..attention import scaled_dot_product_attention


def standard_attention(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys values"],
    *,
    causal: bool = False,
    window: int | None = None,
) -> Float[Tensor, "batch heads queries values"]:
    """Algorithm 0, the paper's baseline: attention with the whole score matrix, in three steps."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    mask = None if window is None else in_window(q.shape[-2], k.shape[-2], window, q.device)
    return scaled_dot_product_attention(q, k, v, causal=causal, mask=mask)


def chunked_attention(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys values"],
    *,
    rows: int,
    causal: bool = False,
) -> Float[Tensor, "batch heads queries values"]:
    """Attention for `rows` queries at a time, recomputed in the backward pass (Rabe and Staats 2021)."""
    found, keys = [], k.shape[-2]
    for start in range(0, q.shape[-2], rows):
        some = q[..., start : start + rows, :]
        seen = keys - q.shape[-2] + start + some.shape[-2] if causal else keys
        attend = partial(standard_attention, causal=causal)
        found.append(checkpoint(attend, some, k[..., :seen, :], v[..., :seen, :], use_reentrant=False))
    return torch.cat(found, -2)


def sdpa(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """torch's fused attention, for equal numbers of queries and keys. A window is passed as a mask."""
    grouped = q.shape[1] != k.shape[1]
    if window is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
    mask = in_window(q.shape[-2], k.shape[-2], window, q.device).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


def sdpa_with(backend: str, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: None) -> Tensor:
    """`sdpa` in one of torch's GPU backends ("cuDNN", "flash"). Raises RuntimeError if it has no kernel."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
    with sdpa_kernel(backends[backend]):
        return sdpa(q, k, v, causal=causal, window=window)


def compiled(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int | None) -> Tensor:
    return compiler(standard_attention)(q, k, v, causal=causal, window=window)


def flex(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """torch's compiler for attention variants, for equal numbers of queries and keys."""
    from torch.nn.attention.flex_attention import flex_attention

    mask = flex_mask(q.shape[-2], window, q.device) if causal else None
    return compiler(flex_attention)(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])


@cache
def in_window(queries: int, keys: int, window: int, device: torch.device) -> Bool[Tensor, "queries keys"]:
    """False for keys `window` or more positions before the query."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).triu(keys - queries - window + 1)


@cache
def compiler(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=False)


@cache
def flex_mask(tokens: int, window: int | None, device: torch.device) -> object:
    from torch.nn.attention.flex_attention import create_block_mask

    width = tokens if window is None else window
    return create_block_mask(
        lambda _batch, _head, query, key: (query >= key) & (query - key < width),
        None,
        None,
        tokens,
        tokens,
        device=device,
    )
