"""Exercises: write the overlaps of boxes, encoding and decoding, and non-maximum suppression."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Draw, Exercise, Try


def boxes(draw: Draw, *many: int) -> Tensor:
    """Boxes of positive area, within a square of 8 pixels."""
    corner = draw.between(0, 4, *many, 2)
    return torch.cat((corner, corner + draw.between(1, 4, *many, 2)), -1)


def of_pairs(draw: Draw) -> Iterator[Try]:
    yield Try("one of each", boxes(draw, 1), boxes(draw, 1))
    yield Try("3 and 4", boxes(draw, 3), boxes(draw, 4))
    yield Try("far apart", boxes(draw, 2), boxes(draw, 2) + 20)
    yield Try("boxes with zero area", torch.zeros(2, 4).double(), torch.zeros(1, 4).double())
    yield Try("2 images", boxes(draw, 2, 3), boxes(draw, 2, 4))


def of_codes(draw: Draw) -> Iterator[Try]:
    yield Try("one box", boxes(draw, 1), boxes(draw, 1))
    yield Try("2 images, 3 boxes each", boxes(draw, 2, 3), boxes(draw, 2, 3))


def of_shifts(draw: Draw) -> Iterator[Try]:
    yield Try("one box", draw(1, 4), boxes(draw, 1))
    yield Try("2 images, 3 boxes each", draw(2, 3, 4), boxes(draw, 2, 3))
    yield Try("clamped log scales", 9 * draw(2, 4).abs(), boxes(draw, 2))


def of_scores(draw: Draw) -> Iterator[Try]:
    yield Try("two boxes", boxes(draw, 2), draw(2), 0.1)
    yield Try("one suppresses both others", boxes(draw, 1).expand(3, 4).clone(), draw(3), 0.5)
    # The second box overlaps both others by more than the threshold, and is suppressed by the first. The
    # first and the third overlap by less.
    chain = torch.tensor([[0.0, 0, 4, 4], [1.5, 0, 5.5, 4], [3.0, 0, 7, 4]]).double()
    yield Try("a suppressed box suppresses none", chain, torch.tensor([3.0, 2, 1]).double(), 0.3)
    yield Try("12 boxes", boxes(draw, 12), draw(12), 0.2)
    yield Try("2 images", boxes(draw, 2, 8), draw(2, 8), 0.2)


EXERCISES = (
    Exercise(
        name="IoU",
        of="boxes.overlaps",
        task="Compute the intersection over union of every box of a with every box of b.",
        hints=(
            "Broadcast all pairs: a[..., :, None, :] and b[..., None, :, :].",
            "The intersection's corners are the larger low corners and the smaller high corners.",
            (
                "Clamp its sides at 0. The union is the sum of both areas minus the intersection. Where "
                "the union is 0, the IoU is 0."
            ),
        ),
        tries=of_pairs,
    ),
    Exercise(
        name="encode",
        of="boxes.encode",
        task="Appendix C: compute the shifts and the log scales that turn `boxes` into `targets`.",
        hints=(
            "_centred returns the centres and the sides.",
            "A shift is the difference of the centres, divided by the side of `boxes`.",
            "A log scale is the logarithm of the side of `targets` over the side of `boxes`.",
        ),
        tries=of_codes,
    ),
    Exercise(
        name="decode",
        of="boxes.decode",
        task="Apply codes to `boxes`, with log scales clamped at _LARGEST.",
        hints=(
            "The centre moves by the first two codes, in units of the sides.",
            (
                "Multiply the sides by the exponential of the last two codes. Corners are half a side from "
                "the centre."
            ),
        ),
        tries=of_shifts,
    ),
    Exercise(
        name="NMS",
        of="boxes.unsuppressed",
        task="Apply greedy non-maximum suppression to many images at once. Return True for kept boxes.",
        hints=(
            (
                "Sort by descending score (stable), and compute the overlaps of the sorted boxes with each "
                "other."
            ),
            "In this order, each kept box removes the later boxes that it overlaps by more than threshold.",
            "Scatter the result back to the original order of the boxes.",
        ),
        tries=of_scores,
        gradients=False,
    ),
)
