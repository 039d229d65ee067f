"""Implements the algorithm as GPU kernels in Triton, with tiles in registers and shared memory.

There are three kernels. The forward kernel is algorithm 1 of the second paper (arXiv 2307.08691). The two
backward kernels are algorithm 2 of that paper, split into a pass for dQ and a pass for dK and dV, so that no
two blocks add to the same memory. Two of the five matrix multiplications are therefore computed twice, but
the results are the same in every call. From Hopper on, tensor descriptors let the copy engine move the tiles.
Older GPUs use ordinary loads with prefetching. Rows beyond a tensor's end are read as zero and are not
written.

The kernels support float16 and bfloat16, accumulate in float32, and need a head size (DIM) of 64 or 128.
Tensors are folded to (heads, tokens, dim) with batch and heads as one axis, so that a query head's key head
is `head // GROUP`.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .tiled import Schedule, online_gradients

LOG2_E = math.log2(math.e)
LN_2 = tl.constexpr(math.log(2))
LOWEST = tl.constexpr(-1e30)  # the maximum of an empty row; finite, because -inf - -inf is NaN


def tuned(tiles: dict[str, str], configs: list[tuple[int, int, int, int]]):
    """Autotune over (BLOCK_Q, BLOCK_K, warps, stages). The first configuration fits into every GPU's
    registers. `tiles` maps each tensor to the block size of its tiles."""

    def set_blocks(arguments: dict) -> None:
        if arguments["ENGINE"]:
            for name, block in tiles.items():
                arguments[name].block_shape = [1, arguments[block], arguments["DIM"]]

    def prune(configs: list, *_: object, **__: object) -> list:
        # There is no point in timing Triton's interpreter.
        return configs[:1] if triton.knobs.runtime.interpret else configs

    return triton.autotune(
        [
            triton.Config(
                {"BLOCK_Q": queries, "BLOCK_K": keys}, num_warps=warps, num_stages=stages, pre_hook=set_blocks
            )
            for queries, keys, warps, stages in configs
        ],
        key=["DIM", "CAUSAL", "WINDOW"],
        prune_configs_by={"early_config_prune": prune},
    )


@triton.jit
def load(tensor, head, start, tokens, BLOCK: tl.constexpr, DIM: tl.constexpr, ENGINE: tl.constexpr):
    """Rows [start, start + BLOCK) of one head."""
    if ENGINE:
        tile = tensor.load([head, start, 0]).reshape([BLOCK, DIM])
    else:
        row = start + tl.arange(0, BLOCK)[:, None]
        first = tensor + head.to(tl.int64) * tokens * DIM
        tile = tl.load(first + row * DIM + tl.arange(0, DIM)[None, :], mask=row < tokens, other=0.0)
    return tile


@triton.jit
def store(tensor, head, start, tokens, tile, BLOCK: tl.constexpr, DIM: tl.constexpr, ENGINE: tl.constexpr):
    if ENGINE:
        tensor.store([head, start, 0], tile.reshape([1, BLOCK, DIM]))
    else:
        row = start + tl.arange(0, BLOCK)[:, None]
        first = tensor + head.to(tl.int64) * tokens * DIM
        tl.store(first + row * DIM + tl.arange(0, DIM)[None, :], tile, mask=row < tokens)


@triton.jit
def visible(row, column, queries, keys, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """Whether queries `row` see keys `column` (two index tensors that broadcast)."""
    seen = (column < keys) & (row < queries)
    if CAUSAL:
        seen = seen & (column <= row + keys - queries)
    if WINDOW > 0:
        seen = seen & (column > row + keys - queries - WINDOW)
    return seen


@triton.jit
def columns_seen(
    start,
    queries,
    keys,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Three ranges of keys for the queries from `start`. Only [a, b) and [c, d) need a mask, not [b, c)."""
    a = 0
    b = 0
    c = keys // BLOCK_K * BLOCK_K
    d = keys
    if CAUSAL:
        c = tl.minimum(keys, tl.maximum(0, start + 1 + keys - queries)) // BLOCK_K * BLOCK_K
        d = tl.minimum(keys, tl.maximum(0, start + BLOCK_Q + keys - queries))
    if WINDOW > 0:
        a = tl.maximum(0, start + 1 + keys - queries - WINDOW) // BLOCK_K * BLOCK_K
        c = tl.maximum(a, c)
        b = tl.minimum(
            c, tl.cdiv(tl.maximum(0, start + BLOCK_Q + keys - queries - WINDOW), BLOCK_K) * BLOCK_K
        )
    return a, b, c, d


@triton.jit
def rows_seeing(
    start,
    queries,
    keys,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Three ranges of queries for the keys from `start`. Only [a, b) and [c, d) need a mask, not [b, c)."""
    a = 0
    b = 0
    c = tl.cdiv(queries, BLOCK_Q) * BLOCK_Q
    d = c
    if CAUSAL:
        a = tl.maximum(0, start + queries - keys) // BLOCK_Q * BLOCK_Q
        b = tl.minimum(d, tl.cdiv(tl.maximum(0, start + BLOCK_K - 1 + queries - keys), BLOCK_Q) * BLOCK_Q)
    if WINDOW > 0:
        d = tl.minimum(queries, start + BLOCK_K - 1 + WINDOW + queries - keys)
        b = tl.minimum(b, d)
        c = tl.maximum(b, tl.minimum(queries, start + WINDOW + queries - keys) // BLOCK_Q * BLOCK_Q)
    return a, b, c, d


@tuned(
    {"q": "BLOCK_Q", "k": "BLOCK_K", "v": "BLOCK_K", "out": "BLOCK_Q"},
    [(128, 64, 8, 3), (128, 64, 4, 3), (128, 128, 8, 3), (128, 128, 8, 2), (64, 64, 4, 3)],
)
@triton.jit
def forward_kernel(
    q,
    k,
    v,
    out,
    lse,
    scale,
    queries,
    keys,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    ENGINE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Computes one head's block of queries. `scale` includes log2(e), and `lse` gets log2(sum of 2^logit)."""
    start = (
        tl.num_programs(0) - 1 - tl.program_id(0)
    ) * BLOCK_Q  # with a causal mask, the longest rows first
    head = tl.program_id(1)
    row = start + tl.arange(0, BLOCK_Q)
    query = load(q, head, start, queries, BLOCK_Q, DIM, ENGINE)
    maximum = tl.full([BLOCK_Q], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    weighted = tl.zeros([BLOCK_Q, DIM], tl.float32)
    a, b, c, d = columns_seen(start, queries, keys, CAUSAL, WINDOW, BLOCK_Q, BLOCK_K)
    for part in tl.static_range(3):
        begin = a if part == 0 else (b if part == 1 else c)
        end = b if part == 0 else (c if part == 1 else d)
        for first in range(begin, end, BLOCK_K):
            key = load(k, head // GROUP, first, keys, BLOCK_K, DIM, ENGINE)
            scores = tl.dot(query, key.T)
            if part != 1:
                column = first + tl.arange(0, BLOCK_K)
                seen = visible(row[:, None], column[None, :], queries, keys, CAUSAL, WINDOW)
                scores = tl.where(seen, scores, -float("inf"))
            new = tl.maximum(maximum, tl.max(scores, 1) * scale)
            weights = tl.exp2(scores * scale - new[:, None])
            correction = tl.exp2(maximum - new)
            total = total * correction + tl.sum(weights, 1)
            value = load(v, head // GROUP, first, keys, BLOCK_K, DIM, ENGINE)
            weighted = tl.dot(weights.to(value.dtype), value, weighted * correction[:, None])
            maximum = new
    result = weighted / tl.where(total == 0, 1, total)[:, None]
    store(out, head, start, queries, result.to(query.dtype), BLOCK_Q, DIM, ENGINE)
    # For a query without visible keys, lse is -inf.
    tl.store(lse + head * queries + row, maximum + tl.log2(total), mask=row < queries)


@tuned(
    {"q": "BLOCK_Q", "k": "BLOCK_K", "v": "BLOCK_K", "out": "BLOCK_Q", "dout": "BLOCK_Q", "dq": "BLOCK_Q"},
    [(64, 64, 4, 3), (128, 64, 8, 3), (128, 64, 8, 2), (128, 128, 8, 2)],
)
@triton.jit
def dq_kernel(
    q,
    k,
    v,
    out,
    dout,
    dq,
    lse,
    delta,
    scale,
    queries,
    keys,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    ENGINE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Computes dQ for one block of queries of one head, and D = rowsum(dO * O) for the other pass."""
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_Q
    head = tl.program_id(1)
    row = start + tl.arange(0, BLOCK_Q)
    query = load(q, head, start, queries, BLOCK_Q, DIM, ENGINE)
    gradient = load(dout, head, start, queries, BLOCK_Q, DIM, ENGINE)
    result = load(out, head, start, queries, BLOCK_Q, DIM, ENGINE)
    own = tl.sum(gradient.to(tl.float32) * result.to(tl.float32), 1)
    tl.store(delta + head * queries + row, own, mask=row < queries)
    norm = tl.load(lse + head * queries + row, mask=row < queries, other=0.0)
    dquery = tl.zeros([BLOCK_Q, DIM], tl.float32)
    a, b, c, d = columns_seen(start, queries, keys, CAUSAL, WINDOW, BLOCK_Q, BLOCK_K)
    for part in tl.static_range(3):
        begin = a if part == 0 else (b if part == 1 else c)
        end = b if part == 0 else (c if part == 1 else d)
        for first in range(begin, end, BLOCK_K):
            key = load(k, head // GROUP, first, keys, BLOCK_K, DIM, ENGINE)
            value = load(v, head // GROUP, first, keys, BLOCK_K, DIM, ENGINE)
            weights = tl.exp2(tl.dot(query, key.T) * scale - norm[:, None])
            if part != 1:
                column = first + tl.arange(0, BLOCK_K)
                seen = visible(row[:, None], column[None, :], queries, keys, CAUSAL, WINDOW)
                weights = tl.where(seen, weights, 0.0)
            dscores = weights * (tl.dot(gradient, value.T) - own[:, None])
            dquery = tl.dot(dscores.to(key.dtype), key, dquery)
    dquery *= scale * LN_2
    store(dq, head, start, queries, dquery.to(query.dtype), BLOCK_Q, DIM, ENGINE)


@tuned(
    {"q": "BLOCK_Q", "k": "BLOCK_K", "v": "BLOCK_K", "dout": "BLOCK_Q", "dk": "BLOCK_K", "dv": "BLOCK_K"},
    [(64, 64, 8, 2), (64, 128, 8, 2), (32, 128, 8, 2), (32, 64, 4, 3)],
)
@triton.jit
def dkdv_kernel(
    q,
    k,
    v,
    dout,
    dk,
    dv,
    lse,
    delta,
    scale,
    queries,
    keys,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    ENGINE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Computes dK and dV for one block of keys of one key head, summed over the query heads that share the
    key head. Tiles are transposed, keys by queries. Keys beyond the end need no mask, because their gradients
    are not written."""
    start = tl.program_id(0) * BLOCK_K
    kv_head = tl.program_id(1)
    column = start + tl.arange(0, BLOCK_K)
    key = load(k, kv_head, start, keys, BLOCK_K, DIM, ENGINE)
    value = load(v, kv_head, start, keys, BLOCK_K, DIM, ENGINE)
    dkey = tl.zeros([BLOCK_K, DIM], tl.float32)
    dvalue = tl.zeros([BLOCK_K, DIM], tl.float32)
    a, b, c, d = rows_seeing(start, queries, keys, CAUSAL, WINDOW, BLOCK_Q, BLOCK_K)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        for part in tl.static_range(3):
            begin = a if part == 0 else (b if part == 1 else c)
            end = b if part == 0 else (c if part == 1 else d)
            for first in range(begin, end, BLOCK_Q):
                row = first + tl.arange(0, BLOCK_Q)
                query = load(q, head, first, queries, BLOCK_Q, DIM, ENGINE)
                gradient = load(dout, head, first, queries, BLOCK_Q, DIM, ENGINE)
                norm = tl.load(lse + head * queries + row, mask=row < queries, other=0.0)
                own = tl.load(delta + head * queries + row, mask=row < queries, other=0.0)
                weights = tl.exp2(tl.dot(key, query.T) * scale - norm[None, :])
                if part != 1:
                    seen = visible(row[None, :], column[:, None], queries, keys, CAUSAL, WINDOW)
                    weights = tl.where(seen, weights, 0.0)
                dvalue = tl.dot(weights.to(gradient.dtype), gradient, dvalue)
                dscores = weights * (tl.dot(value, gradient.T) - own[None, :])
                dkey = tl.dot(dscores.to(query.dtype), query, dkey)
    dkey *= scale * LN_2
    store(dk, kv_head, start, keys, dkey.to(key.dtype), BLOCK_K, DIM, ENGINE)
    store(dv, kv_head, start, keys, dvalue.to(key.dtype), BLOCK_K, DIM, ENGINE)


class FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int, scale: float, engine: bool
    ) -> Tensor:
        """Attention on folded, contiguous tensors."""
        (heads, queries, dim), keys = q.shape, k.shape[1]
        out, lse = torch.empty_like(q), torch.empty_like(q[..., 0], dtype=torch.float32)
        ctx.scale = scale
        ctx.settings = (scale * LOG2_E, queries, keys, heads // len(k), dim, causal, window, engine)
        forward_kernel[grid("BLOCK_Q", q)](*tiles(engine, q, k, v, out), lse, *ctx.settings)
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself is differentiated
            _, queries, keys, _, _, causal, window, _ = ctx.settings
            schedule = Schedule(queries, keys, causal, window or None, query_block=1)
            return *online_gradients(q, k, v, grad, schedule, ctx.scale), None, None, None, None
        dout, engine = grad.contiguous(), ctx.settings[-1]
        dq, dk, dv, delta = (torch.empty_like(x) for x in (q, k, v, lse))
        dq_kernel[grid("BLOCK_Q", q)](*tiles(engine, q, k, v, out, dout, dq), lse, delta, *ctx.settings)
        dkdv_kernel[grid("BLOCK_K", k)](*tiles(engine, q, k, v, dout, dk, dv), lse, delta, *ctx.settings)
        return dq, dk, dv, None, None, None, None


def tiles(engine: bool, *tensors: Tensor) -> list[Tensor] | list[TensorDescriptor]:
    """Kernel arguments for tensors. `tuned` fills in the block size of descriptors."""
    if not engine:
        return list(tensors)
    return [TensorDescriptor.from_tensor(x, [1, 1, x.shape[-1]]) for x in tensors]


def grid(block: str, x: Tensor):
    return lambda arguments: (triton.cdiv(x.shape[1], arguments[block]), len(x))


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
    engine: bool | None = None,
) -> Tensor:
    """`flash_attention` in these kernels. `engine` turns on the copy engine (default: if the GPU has one)."""
    if engine is None:
        engine = q.is_cuda and torch.cuda.get_device_capability(q.device)[0] >= 9
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    folded = (x.flatten(0, 1).contiguous() for x in (q, k, v))
    with torch.cuda.device_of(q):  # Triton launches on the current device
        return FusedAttention.apply(*folded, causal, window or 0, scale, engine).view(q.shape)
