"""Exercises: write RoI pooling, smooth L1 and the loss of both tasks."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Draw, Exercise, Try


def regions(draw: Draw, count: int) -> Tensor:
    """Boxes, in pixels, for images of 12 × 16. Some reach beyond the image."""
    corner = draw.between(-2, 9, count, 2)
    return torch.cat((corner, corner + draw.between(1, 8, count, 2)), -1)


def of_regions(draw: Draw) -> Iterator[Try]:
    whole = torch.tensor([[0.0, 0, 3, 3]]).double()
    yield Try("one cell", draw(1, 1, 4, 4), whole, draw.below(1, 1), size=1, scale=1.0)
    yield Try("2 × 2 cells", draw(1, 2, 4, 4), whole, draw.below(1, 1), size=2, scale=1.0)
    yield Try("half the size", draw(1, 2, 6, 8), regions(draw, 3), draw.below(1, 3), size=2, scale=0.5)
    yield Try("2 images", draw(2, 2, 6, 8), regions(draw, 6), draw.below(2, 6), size=3, scale=0.5)


def of_differences(draw: Draw) -> Iterator[Try]:
    yield Try("small", 0.3 * draw(4))
    yield Try("large", 9 * draw(2, 3))


def of_losses(draw: Draw) -> Iterator[Try]:
    one = torch.zeros(1).long()
    yield Try("one object", draw(1, 2), draw(1, 1, 4), one, draw(1, 4))
    yield Try("background only", draw(2, 2), draw(2, 1, 4), torch.ones(2).long(), draw(2, 4))
    yield Try("3 classes", draw(6, 4), 3 * draw(6, 3, 4), draw.below(4, 6), draw(6, 4))


EXERCISES = (
    Exercise(
        name="RoI pooling",
        of="model.roi_pool",
        task="Compute each channel's maximum in each cell of each region, or 0 in a cell beyond the maps.",
        hints=(
            (
                "Scale and round (halves away from 0). _cells returns positions along each side, and empty "
                "cells."
            ),
            "A position of a cell has the index row · width + column into its image's maps.",
            "Gather the values, take the maximum, set empty cells to 0. Boxes get no gradient.",
        ),
        tries=of_regions,
        half=False,
    ),
    Exercise(
        name="smooth L1",
        of="model.smooth_l1",
        task="Equation 3: write a loss that is quadratic near 0 and linear beyond 1, continuous in value "
        "and slope.",
        hints=(
            "The slope at 1 is 1, so the square is halved.",
            "Half the square is 1/2 at 1, so the line is |x| - 1/2.",
        ),
        tries=of_differences,
    ),
    Exercise(
        name="loss",
        of="model.detection_loss",
        task="Average equation 1 over regions: cross-entropy, plus smooth L1 of the true class's box codes "
        "for objects.",
        hints=(
            "The background is the last class, so its label equals the number of classes in `codes`.",
            "Take the cross-entropy of all regions, and smooth_l1 of the objects' codes minus targets.",
            "Sum smooth_l1 and divide by the number of all regions, including background.",
        ),
        tries=of_losses,
    ),
)
