"""Exercises: squared ReLU, normalised heads that turn by half, and skipped rows."""

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
    yield Try("nothing but zeros", 0 * hidden, rows)


EXERCISES = (
    Exercise(
        name="squared ReLU",
        of="model.squared_relu",
        task="The square of what a ReLU leaves.",
        hints=("Negative numbers become 0; the square comes after.",),
        tries=of_numbers,
    ),
    Exercise(
        name="half a rotation",
        of="model.NormalisedAttention.turn",
        task="Rotate the first half of each head by its token's position; the second half stays as it is.",
        hints=(
            "chunk gives the halves; rotate needs phases(positions, width of the half, base=self.base).",
            "Positions are 0, 1, 2, ... along the second-to-last dimension, in float32 at least.",
        ),
        tries=of_turns,
    ),
    Exercise(
        name="projections",
        of="model.NormalisedAttention.project",
        task="Queries and keys, normalised and then rotated, and values as they are; one product for all.",
        hints=(
            "Each head has its query, key and value together: unflatten to (heads, 3, dim) in this order.",
            "Three tensors (batch, heads, tokens, dim) come out of one permute.",
            "Queries pass query_norm and turn, keys key_norm and turn, values neither.",
        ),
        tries=of_projections,
    ),
    Exercise(
        name="skip zeros",
        of="model.without_zeros",
        task="A product of one token's hidden activations with a matrix that reads only the rows it needs.",
        hints=("Find where `hidden` is not zero, and multiply only these numbers and rows.",),
        tries=of_tokens,
    ),
)
