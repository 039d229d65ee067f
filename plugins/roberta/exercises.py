"""Exercise: compute positions that skip padding."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import RoBERTa


def of_texts(draw: Draw) -> Iterator[Try]:
    small = RoBERTa(9, context=8, model=2, heads=1, layers=0)
    yield Try("no padding", small, torch.tensor([[5, 6, 7]]))
    yield Try("padding at the end", small, torch.tensor([[5, 6, 1, 1], [5, 1, 1, 1]]))
    yield Try("padding at the start", small, torch.tensor([[1, 1, 5, 6]]))


EXERCISES = (
    Exercise(
        name="positions",
        of="model.RoBERTa.position_ids",
        task="Compute positions. Padding (id 1) has position 1, and all other tokens are numbered from 2 on.",
        hints=(
            "Make a mask that is True for tokens other than padding. Its cumsum numbers these tokens.",
            "Multiply by the same mask, which sets padding to 0. Then add 1.",
        ),
        tries=of_texts,
    ),
)
