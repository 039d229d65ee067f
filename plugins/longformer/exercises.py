"""Exercises: write attention within a band and attention from the global tokens."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import LongformerAttention


def of_bands(draw: Draw) -> Iterator[Try]:
    yield Try("one token to either side", *heads(draw, 1, 4), window=1)
    yield Try("the last piece is short", *heads(draw, 2, 5), window=2)
    visible = draw.mask(2, 5, share=0.7)
    visible[:, 0] = True
    yield Try("padding", *heads(draw, 2, 5, batch=2), window=2, visible=visible)
    yield Try("one global token", *heads(draw, 1, 5), window=1, everywhere=torch.tensor([[0]]))
    yield Try(
        "two global tokens", *heads(draw, 2, 6, batch=2), window=1, everywhere=torch.tensor([[0, 3], [2, 5]])
    )


def heads(draw: Draw, count: int, tokens: int, batch: int = 1) -> tuple[torch.Tensor, ...]:
    return tuple(draw(batch, count, tokens, 2) for _ in range(3))


def of_globals(draw: Draw) -> Iterator[Try]:
    yield Try("one of 3 tokens", LongformerAttention(2, 1, 1), draw(1, 3, 2), torch.tensor([[1]]), None)
    visible = torch.tensor([[True, True, False], [True, False, True]])
    yield Try("padding", LongformerAttention(4, 2, 1), draw(2, 3, 4), torch.tensor([[0, 1], [0, 2]]), visible)


EXERCISES = (
    Exercise(
        name="band",
        of="model.banded_attention",
        task="Let each token attend to itself, to `window` tokens on either side, and to the global tokens.",
        hints=(
            (
                "Start with a full mask: |i - j| ≤ window, combined with `visible`. The solution need not be "
                "fast to pass."
            ),
            "A global token counts only once, even if it lies in the window.",
            "Return zeros for a query that has no visible key.",
        ),
        tries=of_bands,
    ),
    Exercise(
        name="global tokens",
        of="model.LongformerAttention.of_global",
        task="Compute the global tokens' attention to all tokens with the global projections. Return the "
        "positions of the outputs, and the outputs.",
        hints=(
            (
                "Gather the global tokens of x, apply query_global, key_global and value_global, and split "
                "into heads."
            ),
            "`visible` masks keys. It needs dimensions for heads and queries.",
            "The positions have the shape of the outputs: expand `everywhere`.",
        ),
        tries=of_globals,
    ),
)
