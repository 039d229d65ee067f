"""Exercises: how boxes overlap, how one is coded by another, which of many stay, and warping."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Draw, Exercise, Try


def boxes(draw: Draw, *many: int) -> Tensor:
    """Boxes with an area, which crowd within a square of 8 pixels."""
    corner = draw.between(0, 4, *many, 2)
    return torch.cat((corner, corner + draw.between(1, 4, *many, 2)), -1)


def of_pairs(draw: Draw) -> Iterator[Try]:
    yield Try("one of each", boxes(draw, 1), boxes(draw, 1))
    yield Try("3 and 4", boxes(draw, 3), boxes(draw, 4))
    yield Try("far apart", boxes(draw, 2), boxes(draw, 2) + 20)
    yield Try("boxes without an area", torch.zeros(2, 4).double(), torch.zeros(1, 4).double())
    yield Try("2 images", boxes(draw, 2, 3), boxes(draw, 2, 4))


def of_codes(draw: Draw) -> Iterator[Try]:
    yield Try("one box", boxes(draw, 1), boxes(draw, 1))
    yield Try("2 images, 3 boxes each", boxes(draw, 2, 3), boxes(draw, 2, 3))


def of_shifts(draw: Draw) -> Iterator[Try]:
    yield Try("one box", draw(1, 4), boxes(draw, 1))
    yield Try("2 images, 3 boxes each", draw(2, 3, 4), boxes(draw, 2, 3))
    yield Try("a side that would grow too much", 9 * draw(2, 4).abs(), boxes(draw, 2))


def of_scores(draw: Draw) -> Iterator[Try]:
    yield Try("two boxes", boxes(draw, 2), draw(2), 0.1)
    yield Try("one beats both others", boxes(draw, 1).expand(3, 4).clone(), draw(3), 0.5)
    # The second overlaps both, the first and the third do not meet: the second's place decides.
    chain = torch.tensor([[0.0, 0, 4, 4], [1.5, 0, 5.5, 4], [3.0, 0, 7, 4]]).double()
    yield Try("a box that is gone beats none", chain, torch.tensor([3.0, 2, 1]).double(), 0.3)
    yield Try("12 boxes", boxes(draw, 12), draw(12), 0.2)
    yield Try("2 images", boxes(draw, 2, 8), draw(2, 8), 0.2)


EXERCISES = (
    Exercise(
        name="IoU",
        of="boxes.overlaps",
        task="Intersection over union of every box of a with every box of b.",
        hints=(
            "Broadcast: a gets a dimension before its last, b one before its boxes.",
            "The intersection's corners are the larger of the low ones and the smaller of the high ones.",
            "clamp its sides at 0. The union is both areas less the intersection; where it is 0, so is IoU.",
        ),
        tries=of_pairs,
    ),
    Exercise(
        name="encode",
        of="boxes.encode",
        task="Appendix C: the shifts and the logarithms of scales that turn `boxes` into `targets`.",
        hints=(
            "_centred gives centres and sides of both.",
            "A shift is the difference of centres over the side of `boxes`.",
            "A scale is the side of `targets` over that of `boxes`; take the logarithm.",
        ),
        tries=of_codes,
    ),
    Exercise(
        name="decode",
        of="boxes.decode",
        task="The boxes that codes make of `boxes`; logarithms of scales are cut off at _LARGEST.",
        hints=(
            "The centre moves by the first two codes, in units of the sides.",
            "The sides grow by the exponential of the last two; a corner is half a side from the centre.",
        ),
        tries=of_shifts,
    ),
    Exercise(
        name="NMS",
        of="boxes.unsuppressed",
        task="Greedy non-maximum suppression of many images at once: True where a box stays.",
        hints=(
            "Sort by score, from the best down (stable); overlaps of the sorted boxes with themselves.",
            "Go down: a box that still stays takes away the later ones it overlaps by more than threshold.",
            "scatter what stays back to the boxes' own order.",
        ),
        tries=of_scores,
        gradients=False,
    ),
)
