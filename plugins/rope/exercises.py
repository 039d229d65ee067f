"""Exercises: the angles, the rotation, and rotary attention."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import RotaryAttention, phases


def of_phases(draw: Draw) -> Iterator[Try]:
    yield Try("3 positions, one pair", torch.arange(3).double(), 2)
    yield Try("3 pairs", torch.arange(4).double(), 6)
    yield Try("positions that are not whole numbers", draw(3), 4)
    yield Try("base 100", torch.arange(3).double(), 4, base=100.0)


def of_rotations(draw: Draw) -> Iterator[Try]:
    yield Try("one pair", draw(2, 2), phases(torch.arange(2).double(), 2))
    yield Try("2 pairs", draw(3, 4), phases(1 + torch.arange(3).double(), 4, base=10.0))
    yield Try("batch and heads", draw(2, 2, 3, 4), phases(torch.arange(3).double(), 4, base=10.0))


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("one head", RotaryAttention(2, 1), draw(1, 3, 2))
    yield Try("two heads", RotaryAttention(8, 2, base=10.0), draw(1, 3, 8))
    yield Try("a later first position", RotaryAttention(4, 1, base=10.0), draw(2, 3, 4), first=5)
    yield Try("causal", RotaryAttention(4, 1, base=10.0), draw(1, 3, 4), causal=True)


EXERCISES = (
    Exercise(
        name="angles",
        of="model.phases",
        task="Compute points on the unit circle, e^(i m θ_j) with θ_j = base^(-2j / dim).",
        hints=(
            "The exponents are 0, -2, -4, ..., divided by dim, one for each pair of coordinates.",
            "The angles are the outer product of positions and θ. torch.polar turns them into phases.",
        ),
        tries=of_phases,
        gradients=False,
    ),
    Exercise(
        name="rotate",
        of="model.rotate",
        task="Multiply coordinates 2j and 2j + 1 of token m, as one complex number, by e^(i m θ_j).",
        hints=(
            "Unflatten the last dimension into pairs of neighbours.",
            (
                "Use torch.view_as_complex, multiply, torch.view_as_real, flatten. For half precision, "
                "compute in float32."
            ),
        ),
        tries=of_rotations,
    ),
    Exercise(
        name="attention",
        of="model.RotaryAttention.forward",
        task="Equation 16: rotate queries and keys, but not values, before computing the scores.",
        hints=(
            "Project and split into heads as in multi-head attention. self.turn rotates q and k.",
            "Positions are `first`, `first + 1`, ... in the dtype of x (float32 for half precision).",
        ),
        tries=of_layers,
    ),
)
