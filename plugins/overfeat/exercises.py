"""Exercises: convert boxes to pixels, compute their overlap, and accumulate them."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try


def of_pairs(draw: Draw) -> Iterator[Try]:
    yield Try("they overlap", torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 3, 2]))
    yield Try("they do not", torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 2, 3, 3]]))
    yield Try("many", boxes(draw, 2, 5), boxes(draw, 2, 5))


def boxes(draw: Draw, *size: int) -> torch.Tensor:
    corner = draw.between(0, 4, *size, 2)
    return torch.cat((corner, corner + draw.between(1, 4, *size, 2)), -1)


def of_windows(draw: Draw) -> Iterator[Try]:
    yield Try("one window", draw.between(0, 1, 1, 4, 1, 1), stride=2, window=6, scale=1.0)
    yield Try("two rows, three columns", draw.between(0, 1, 2, 4, 2, 3), stride=4, window=8, scale=2.0)


def of_many(draw: Draw) -> Iterator[Try]:
    two = torch.tensor([[[0.0, 0, 10, 10], [0, 1, 10, 11]]])
    yield Try("two that agree", two, draw.between(0, 1, 1, 2, 2))
    yield Try("one agrees with none", torch.cat((two, two[:, :1] + 30), 1), draw.between(0, 1, 1, 3, 2))
    yield Try("two images", boxes(draw, 2, 5), draw.between(0, 1, 2, 5, 3), threshold=0.3)


EXERCISES = (
    Exercise(
        name="overlap",
        of="model.iou_of_pairs",
        task="Compute the intersection over union of each box of a with the box of b at the same index.",
        hints=(
            (
                "The intersection's corners are the maximum of the low corners and the minimum of the high "
                "corners."
            ),
            (
                "If a side is negative, the boxes do not overlap. The union is the sum of both areas minus "
                "the intersection."
            ),
        ),
        tries=of_pairs,
        gradients=False,
    ),
    Exercise(
        name="boxes in pixels",
        of="model.in_pixels",
        task="Convert boxes from window coordinates to pixels of the image before it was enlarged.",
        hints=("A window's corner is its row and column times the stride.", "Divide by the scale last."),
        tries=of_windows,
    ),
    Exercise(
        name="accumulation",
        of="model.accumulate",
        task="Replace the two boxes that match best by their mean and add their scores, until no two boxes "
        "match.",
        hints=(
            "Match all pairs by intersection over union, and take each image's best pair.",
            ("The first box becomes the mean and gets the summed scores. The second box's scores become 0."),
        ),
        tries=of_many,
        gradients=False,
    ),
)
