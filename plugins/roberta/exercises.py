"""Exercises: positions that skip the filling."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import RoBERTa


def of_texts(draw: Draw) -> Iterator[Try]:
    small = RoBERTa(9, context=8, model=2, heads=1, layers=0)
    yield Try("no filling", small, torch.tensor([[5, 6, 7]]))
    yield Try("filling at the end", small, torch.tensor([[5, 6, 1, 1], [5, 1, 1, 1]]))
    yield Try("filling at the start", small, torch.tensor([[1, 1, 5, 6]]))


EXERCISES = (
    Exercise(
        name="positions",
        of="model.RoBERTa.position_ids",
        task="Filling (id 1) has position 1; all other tokens count from 2 on.",
        hints=(
            "cumsum over what is there counts the tokens.",
            "Where there is filling the count must not show: multiply by what is there before adding 1.",
        ),
        tries=of_texts,
    ),
)
