"""Implements the algorithm in PyTorch for any device, as written and in tiles that fit in a cache.

`online_attention` is the idea in ten lines, but autograd stores every tile for the backward pass.
`tiled_attention` has a hand-written gradient. Its loop order is FlashAttention-2's (arXiv 2307.08691,
algorithms 1 and 2): blocks of queries in the outer loop, blocks of keys in the inner loop. Several choices
make it fast without a kernel. Each multiplication is batched over several heads. The scores stay in one
buffer and are changed in place. Logits are in base 2 (2^x takes half the time of e^x). Partial sums are
rescaled only when necessary.

Dimensions: batch, heads, queries, keys, dim (size of a query or a key), values (size of a value). Inside,
batch and heads are one axis, and the `group` query heads that share a head of keys are stacked as rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LOG2_E = math.log2(math.e)

# Each thread's tiles of float32 scores (four heads, 2 MiB) fit into a last-level cache. With smaller tiles,
# the overhead of calls exceeds the computation.
QUERY_BLOCK, KEY_BLOCK, HEADS_PER_THREAD = 256, 512, 4

# If a row's maximum rises by less than this (in powers of 2), the row's sums are not rescaled.
SLACK = 16

# The maximum of an empty row of logits. It is finite because -inf - -inf is NaN.
LOWEST = -1e30


def check_window(window: int | None, *, causal: bool) -> None:
    """Raises ValueError for an invalid window."""
    if window is not None and (window < 1 or not causal):
        raise ValueError("a window must be at least 1, and needs causal=True")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Determines which tiles of the score matrix are computed, and how they are masked.

    causal  no query sees a later position; the last query is aligned with the last key (lower right)
    window  a query sees itself and the `window - 1` positions before it (needs `causal`)

    Raises ValueError for an invalid window. Also raises ValueError if, with these block sizes, some query has
    no visible key in its first tile. The first tile sets each row's maximum.
    """

    queries: int
    keys: int
    causal: bool = False
    window: int | None = None
    query_block: int = QUERY_BLOCK
    key_block: int = KEY_BLOCK

    def __post_init__(self) -> None:
        check_window(self.window, causal=self.causal)
        if self.window is not None and self.key_block < self.query_block:
            raise ValueError("with a window, a block of keys must not be narrower than a block of queries")

    def rows(self) -> Iterator[slice]:
        """The blocks of queries."""
        for start in range(0, self.queries, self.query_block):
            yield slice(start, min(start + self.query_block, self.queries))

    def columns(self, rows: slice) -> Iterator[slice]:
        """The blocks of keys that some query in `rows` sees. Other blocks are skipped (section 3.1 of the
        second paper), and the last block ends at the last visible key."""
        ahead = self.keys - self.queries
        first = max(0, rows.start + ahead - self.window + 1) if self.window else 0
        end = min(self.keys, rows.stop + ahead) if self.causal else self.keys
        for start in range(first, end, self.key_block):
            yield slice(start, min(start + self.key_block, end))

    def bias(self, rows: slice, columns: slice, like: Tensor) -> Float[Tensor, "queries keys"] | None:
        """Mask with 0 where a query sees a key, else -inf, or None if every query sees every key. (Adding it
        takes a tenth of the time of `masked_fill_`.)"""
        ahead = self.keys - self.queries
        hides_later = self.causal and columns.stop - 1 > rows.start + ahead
        hides_earlier = self.window is not None and columns.start <= rows.stop - 1 + ahead - self.window
        if not (hides_later or hides_earlier):
            return None
        shape = rows.stop - rows.start, columns.stop - columns.start
        diagonal = rows.start + ahead - columns.start  # column of the first query's own position
        bias = like.new_full(shape, -torch.inf).triu_(diagonal + 1)
        if hides_earlier:
            bias += like.new_full(shape, -torch.inf).tril_(diagonal - self.window)
        return bias


def online_attention(
    q: Float[Tensor, "*batch heads queries dim"],
    k: Float[Tensor, "*batch kv_heads keys dim"],
    v: Float[Tensor, "*batch kv_heads keys values"],
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
    key_block: int = KEY_BLOCK,
) -> Float[Tensor, "*batch heads queries values"]:
    """Section 3.1 as written: processes keys in blocks, and never stores a whole row of scores."""
    schedule = Schedule(q.shape[-2], k.shape[-2], causal, window, 1, key_block)
    k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], dim=-3) for x in (k, v))
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    weighted, total = q.new_zeros(*q.shape[:-1], v.shape[-1]), torch.zeros_like(q[..., :1])
    maximum = torch.full_like(total, LOWEST)
    for keys in (slice(start, start + key_block) for start in range(0, k.shape[-2], key_block)):
        scores = q @ k[..., keys, :].mT
        bias = schedule.bias(slice(0, q.shape[-2]), slice(keys.start, keys.start + scores.shape[-1]), scores)
        scores = scores if bias is None else scores + bias
        # The result does not depend on the maximum, so no gradient needs to flow through it.
        new = torch.maximum(maximum, scores.amax(-1, keepdim=True)).detach()
        weights, correction = (scores - new).exp(), (maximum - new).exp()
        total = total * correction + weights.sum(-1, keepdim=True)
        weighted = weighted * correction + weights @ v[..., keys, :]
        maximum = new
    return weighted / total.masked_fill(total == 0, 1)


def forward(
    q: Float[Tensor, "heads group queries dim"],
    k: Float[Tensor, "heads keys dim"],
    v: Float[Tensor, "heads keys values"],
    schedule: Schedule,
    scale: float,
) -> tuple[Float[Tensor, "heads group queries values"], Float[Tensor, "heads group queries 1"]]:
    """Algorithm 1 of the second paper: the output, and the log2 of each row's sum of 2^logit.

    For a query without visible keys, the output is zero and the log2 is -inf.
    """
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    lse = torch.empty_like(q[..., :1], dtype=working_dtype(q))
    for heads, (buffer,) in chunks(q, schedule, buffers=1):
        keys, values = (x[heads].to(buffer.dtype) for x in (k, v))
        for rows in schedule.rows():
            query = gather(q[heads, :, rows], scale * LOG2_E)
            # For each row: the negative of the maximum, which is subtracted from the logits, and the sum of
            # 2^logit.
            offset, total = query.new_zeros(2, *query.shape[:-1], 1)
            weighted = query.new_zeros(*query.shape[:-1], v.shape[-1])
            new = torch.empty_like(total)
            for tile, columns in enumerate(schedule.columns(rows)):
                key, value = keys[:, columns], values[:, columns]
                scores = view(buffer, *query.shape[:-1], key.shape[1])
                torch.baddbmm(offset, query, key.mT, out=scores)
                hide(scores, schedule.bias(rows, columns, scores))
                torch.amax(scores, -1, keepdim=True, out=new)
                if tile == 0:
                    scores.sub_(new.clamp_(min=LOWEST))
                    offset.sub_(new)
                elif new.amax() > SLACK:
                    # The online softmax rescales the sums from the old maximum to the new maximum. Any number
                    # near the maximum works, so this step is skipped for most tiles (as in FlashAttention-4).
                    scores.sub_(new.clamp_(min=0))
                    offset.sub_(new)
                    correction = new.neg_().exp2_()
                    total.mul_(correction)
                    weighted.mul_(correction)
                torch.sum(exp2_(scores), -1, keepdim=True, out=new)
                total.add_(new)
                weighted.baddbmm_(scores, value)
            lse[heads, :, rows] = scatter(total.log2().sub_(offset), lse[heads, :, rows])
            weighted.div_(total.masked_fill_(total == 0, 1))
            out[heads, :, rows] = scatter(weighted, out[heads, :, rows])
    return out, lse


def backward(
    q: Float[Tensor, "heads group queries dim"],
    k: Float[Tensor, "heads keys dim"],
    v: Float[Tensor, "heads keys values"],
    out: Float[Tensor, "heads group queries values"],
    lse: Float[Tensor, "heads group queries 1"],
    grad: Float[Tensor, "heads group queries values"],
    schedule: Schedule,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 2 of the second paper: the gradients of q, k and v, with recomputed tiles of scores.

    Tiles are transposed (keys by queries), so two of the three multiplications by a tile read it along rows.
    """
    dtype = working_dtype(q)
    dq = torch.empty_like(q)
    dk, dv = torch.zeros_like(k, dtype=dtype), torch.zeros_like(v, dtype=dtype)
    for heads, buffers in chunks(q, schedule, buffers=2):
        keys, values, dkeys, dvalues = (x[heads].to(dtype) for x in (k, v, dk, dv))
        for rows in schedule.rows():
            query = gather(q[heads, :, rows], scale * LOG2_E)
            dout = gather(grad[heads, :, rows])
            # The negative of D = rowsum(dO ∘ O), a term of the softmax gradient (first paper, equation 4).
            delta = (dout * gather(out[heads, :, rows])).sum(-1, keepdim=True).neg_().mT
            # For a query without visible keys, lse is -inf, and 2^(-inf + inf) would be NaN.
            offset = gather(lse[heads, :, rows]).neg_()
            offset = offset.masked_fill_(offset == torch.inf, 0).mT
            dquery = torch.zeros_like(query)
            for columns in schedule.columns(rows):
                key, value = keys[:, columns], values[:, columns]
                weights, dscores = (view(buffer, *key.shape[:2], query.shape[1]) for buffer in buffers)
                torch.baddbmm(offset, key, query.mT, out=weights)
                hide(weights.mT, schedule.bias(rows, columns, weights))
                exp2_(weights)
                dvalues[:, columns].baddbmm_(weights, dout)
                torch.baddbmm(delta, value, dout.mT, out=dscores)
                dscores.mul_(weights)
                dkeys[:, columns].baddbmm_(dscores, query)
                dquery.baddbmm_(dscores.mT, key)
            dq[heads, :, rows] = scatter(dquery.mul_(scale), dq[heads, :, rows])
    return dq, dk.div_(LOG2_E).to(k.dtype), dv.to(v.dtype)


def chunks(q: Tensor, schedule: Schedule, *, buffers: int) -> Iterator[tuple[slice, Tensor]]:
    """Groups of heads that are processed together, each with a buffer for its scores."""
    tile = q.shape[1] * min(schedule.query_block, schedule.queries) * min(schedule.key_block, schedule.keys)
    threads = torch.get_num_threads() if q.device.type == "cpu" else 64
    heads = threads * HEADS_PER_THREAD * QUERY_BLOCK * KEY_BLOCK // max(1, tile)
    heads = min(max(1, heads), max(1, len(q)))
    room = q.new_empty(buffers, heads * tile, dtype=working_dtype(q))
    for start in range(0, len(q), heads):
        yield slice(start, start + heads), room


def working_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def view(buffer: Tensor, *shape: int) -> Tensor:
    return buffer[: math.prod(shape)].view(shape)


def gather(block: Float[Tensor, "heads group queries dim"], factor: float = 1.0) -> Tensor:
    """A block's rows times `factor`, with the group's heads stacked, in the working precision."""
    return (block.to(working_dtype(block)) * factor).flatten(1, 2)


def scatter(rows: Float[Tensor, "heads rows dim"], block: Tensor) -> Tensor:
    return rows.view(block.shape)


def exp2_(scores: Tensor) -> Tensor:
    """Computes 2^scores in place. Values below the smallest normal number become 0, because subnormal numbers
    would slow down this function and later multiplications many times."""
    return F.threshold_(scores, math.log2(torch.finfo(scores.dtype).tiny), -torch.inf).exp2_()


def hide(scores: Tensor, bias: Tensor | None) -> None:
    if bias is not None:
        scores.unflatten(-2, (-1, len(bias))).add_(bias)


class TiledAttention(torch.autograd.Function):
    """Attention that stores only its result and one number per row for the backward pass."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, schedule: Schedule, scale: float) -> Tensor:
        groups, keys, values = fold(q, k), k.flatten(0, 1), v.flatten(0, 1)
        out, lse = forward(groups, keys, values, schedule, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.schedule, ctx.scale = schedule, scale
        return out.view(*q.shape[:-1], v.shape[-1])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself is differentiated
            return *online_gradients(q, k, v, grad, ctx.schedule, ctx.scale), None, None
        grads = backward(
            fold(q, k),
            k.flatten(0, 1),
            v.flatten(0, 1),
            out,
            lse,
            grad.reshape(out.shape),
            ctx.schedule,
            ctx.scale,
        )
        return *(g.view(x.shape) for g, x in zip(grads, (q, k, v), strict=True)), None, None


def online_gradients(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, schedule: Schedule, scale: float
) -> tuple[Tensor, ...]:
    """The gradients of q, k and v through `online_attention`, which supports double backward."""
    attend = partial(
        online_attention,
        causal=schedule.causal,
        window=schedule.window,
        scale=scale,
        key_block=schedule.key_block,
    )
    exact = working_dtype(q)
    _, pull_back = torch.func.vjp(attend, *(x.to(exact) for x in (q, k, v)))
    return tuple(own.to(grad.dtype) for own in pull_back(grad.to(exact)))


def fold(q: Float[Tensor, "batch heads queries dim"], k: Float[Tensor, "batch kv_heads keys dim"]) -> Tensor:
    """(batch × kv_heads, group, queries, dim)"""
    return q.unflatten(1, (k.shape[1], -1)).flatten(0, 1)


def tiled_attention(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys values"],
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
    query_block: int = QUERY_BLOCK,
    key_block: int = KEY_BLOCK,
) -> Float[Tensor, "batch heads queries values"]:
    schedule = Schedule(q.shape[-2], k.shape[-2], causal, window, query_block, key_block)
    return TiledAttention.apply(q, k, v, schedule, q.shape[-1] ** -0.5 if scale is None else scale)
