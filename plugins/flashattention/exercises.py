"""Exercises: write the online softmax, a tile's mask, and tiled attention's forward and backward pass."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .tiled import Schedule, forward


def of_attention(draw: Draw) -> Iterator[Try]:
    yield Try("one block", draw(1, 2, 2), draw(1, 3, 2), draw(1, 3, 2), key_block=3)
    yield Try("blocks of 1", draw(1, 2, 2), draw(1, 3, 2), draw(1, 3, 2), key_block=1)
    yield Try("the last block is short", draw(1, 2, 3), draw(1, 5, 3), draw(1, 5, 2), key_block=2)
    growing = torch.arange(6.0, dtype=torch.float64)[None, :, None] * 100
    yield Try("scores that grow", 1 + draw(1, 1, 1).abs(), growing, draw(1, 6, 2), key_block=2, scale=1.0)
    yield Try(
        "scores that fall", 1 + draw(1, 1, 1).abs(), growing.flip(1), draw(1, 6, 2), key_block=2, scale=1.0
    )
    yield Try("causal", draw(1, 4, 2), draw(1, 4, 2), draw(1, 4, 2), causal=True, key_block=2)
    yield Try(
        "causal, more queries than keys",
        draw(1, 4, 2),
        draw(1, 2, 2),
        draw(1, 2, 2),
        causal=True,
        key_block=1,
    )
    yield Try("a window", draw(1, 5, 2), draw(1, 5, 2), draw(1, 5, 2), causal=True, window=2, key_block=2)
    yield Try(
        "two query heads share a head of keys",
        draw(2, 4, 3, 2),
        draw(2, 2, 5, 2),
        draw(2, 2, 5, 3),
        key_block=2,
    )


def of_bias(draw: Draw) -> Iterator[Try]:
    like = draw(1)
    causal = Schedule(6, 6, causal=True, query_block=2, key_block=3)
    yield Try("a tile on the diagonal", causal, slice(2, 4), slice(0, 3), like)
    yield Try("a tile across the diagonal", causal, slice(2, 4), slice(3, 6), like)
    yield Try("a tile below the diagonal", causal, slice(4, 6), slice(0, 3), like)
    yield Try("not causal", Schedule(6, 6), slice(0, 2), slice(3, 6), like)
    longer = Schedule(3, 6, causal=True, query_block=2, key_block=3)
    yield Try("more keys than queries", longer, slice(0, 2), slice(3, 6), like)
    window = Schedule(6, 6, causal=True, window=2, query_block=2, key_block=3)
    yield Try("a window", window, slice(2, 4), slice(0, 3), like)
    yield Try("a window and the diagonal", window, slice(2, 4), slice(2, 5), like)


def of_forward(draw: Draw) -> Iterator[Try]:
    yield Try("one tile", *_groups(draw, 1, 1, 2, 3), Schedule(2, 3), 0.5)
    yield Try("several tiles", *_groups(draw, 1, 1, 3, 5), Schedule(3, 5, query_block=2, key_block=2), 0.5)
    yield Try("causal", *_groups(draw, 2, 1, 4, 4), Schedule(4, 4, True, query_block=2, key_block=2), 0.5)
    yield Try("a group of two", *_groups(draw, 2, 2, 3, 4), Schedule(3, 4, query_block=2, key_block=3), 0.5)
    q, k, v = _groups(draw, 1, 1, 2, 6)
    rising = k * torch.arange(6.0, dtype=torch.float64)[:, None]
    yield Try("scores that grow", 30 * q, rising, v, Schedule(2, 6, query_block=1, key_block=2), 1.0)
    blind = Schedule(4, 2, True, query_block=2, key_block=2)
    yield Try("queries without visible keys", *_groups(draw, 1, 1, 4, 2), blind, 0.5)


def of_backward(draw: Draw) -> Iterator[Try]:
    for one in of_forward(draw):
        q, k, v, schedule, scale = one.arguments
        out, lse = forward(q, k, v, schedule, scale)
        yield Try(one.label, q, k, v, out, lse, draw(*out.shape), schedule, scale)


def _groups(draw: Draw, heads: int, group: int, queries: int, keys: int) -> tuple[torch.Tensor, ...]:
    return draw(heads, group, queries, 2), draw(heads, keys, 2), draw(heads, keys, 3)


EXERCISES = (
    Exercise(
        name="mask of a tile",
        of="tiled.Schedule.bias",
        task="Return a mask with 0 where a query of the tile sees a key, else -inf. Return None if nothing "
        "is masked.",
        hints=(
            "The first query's own position is the tile's column rows.start + ahead - columns.start.",
            "Put -inf above that diagonal, with triu_ of a matrix of -inf. For a window, also use tril_.",
        ),
        tries=of_bias,
    ),
    Exercise(
        name="online softmax",
        of="tiled.online_attention",
        task="Write section 3.1: process keys in blocks, without ever storing a whole row of scores.",
        hints=(
            "For each row, keep a running maximum, the sum of exponentials and the weighted values.",
            "When the maximum rises from m to m', multiply the sum and the weighted values by exp(m - m').",
            "Divide once, at the end. A row without visible keys has a sum of 0.",
        ),
        tries=of_attention,
    ),
    Exercise(
        name="tiled forward",
        of="tiled.forward",
        task="Algorithm 1 of FlashAttention-2: compute the output, and the log2 of each row's sum of "
        "2^logit.",
        hints=(
            "Loop over schedule.rows(), and inside over schedule.columns(rows). schedule.bias is the mask.",
            "A logit in base 2 is score · scale · LOG2_E, so that 2^logit is e^(score · scale).",
            (
                "lse is the row's maximum plus log2 of the sum relative to this maximum, and -inf for a row "
                "without visible keys."
            ),
        ),
        tries=of_forward,
        gradients=False,
    ),
    Exercise(
        name="tiled backward",
        of="tiled.backward",
        task="Algorithm 2: compute the gradients of q, k and v, with recomputed tiles of weights.",
        hints=(
            "The weights of a tile are 2^(logit - lse). The maximum and the sum are not needed again.",
            "dv += weightsᵀ dout, and dscores = weights · (dout vᵀ - D), with D = rowsum(dout · out).",
            "dq += dscores k · scale and dk += dscoresᵀ q · scale.",
        ),
        tries=of_backward,
        gradients=False,
    ),
)
