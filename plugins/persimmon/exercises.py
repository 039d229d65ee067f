"""Exercises: write squared ReLU, half-rotary positions, normalised projections, and a sparse product."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import NormalisedAttention


def of_numbers(draw: Draw) -> Iterator[Try]:
    yield Try("both signs", torch.tensor([-2.0, 0.5, 3.0]).double())
    yield Try("2 tokens", draw(2, 4))


def of_turns(draw: Draw) -> Iterator[Try]:
    yield Try("the first token", NormalisedAttention(4, 1), draw(1, 1, 1, 4))
    yield Try("2 tokens", NormalisedAttention(4, 1), draw(1, 1, 2, 4))
    yield Try("heads of 8, another base", NormalisedAttention(16, 2, base=10.0), draw(1, 2, 3, 8))


def of_projections(draw: Draw) -> Iterator[Try]:
    yield Try("one head", NormalisedAttention(4, 1), draw(1, 2, 4))
    yield Try("2 heads", NormalisedAttention(8, 2), draw(2, 3, 8))
    yield Try("without the norm", NormalisedAttention(8, 2, normalised=False), draw(1, 3, 8))


def of_tokens(draw: Draw) -> Iterator[Try]:
    hidden = torch.tensor([0, 1.5, 0, -0.5]).double()
    rows = draw(4, 2)
    yield Try("half are zero", hidden, rows)
    unread = torch.where(hidden[:, None] == 0, torch.nan, rows)
    yield Try("rows that must not be read", hidden, unread)
    yield Try("only zeros", 0 * hidden, rows)


EXERCISES = (
    Exercise(
        name="squared ReLU",
        of="model.squared_relu",
        task="Compute the square of a ReLU.",
        hints=("Set negative numbers to 0, then square.",),
        tries=of_numbers,
    ),
    Exercise(
        name="half a rotation",
        of="model.NormalisedAttention.turn",
        task="Rotate the first half of each head by its token's position, and keep the second half.",
        hints=(
            "chunk gives the halves. rotate needs phases(positions, size of the half, base=self.base).",
            "Positions are 0, 1, 2, ... along the second-to-last dimension, in float32 or wider.",
        ),
        tries=of_turns,
    ),
    Exercise(
        name="projections",
        of="model.NormalisedAttention.project",
        task="Compute queries and keys, normalised and then rotated, and unchanged values from one "
        "projection.",
        hints=(
            "Each head has its query, key and value together, so unflatten to (heads, 3, dim) in this order.",
            "One permute gives three tensors of shape (batch, heads, tokens, dim).",
            "Apply query_norm and turn to queries, and key_norm and turn to keys. Leave values unchanged.",
        ),
        tries=of_projections,
    ),
    Exercise(
        name="skip zeros",
        of="model.without_zeros",
        task="Multiply one token's hidden activations by a matrix, reading only the rows that are needed.",
        hints=("Find where `hidden` is not zero, and multiply only these entries and rows.",),
        tries=of_tokens,
    ),
)
