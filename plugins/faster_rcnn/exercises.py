"""Exercises: anchors of all shapes and in all places, which ones learn, and the loss."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Draw, Exercise, Try

from .model import Matched, anchors_at, anchors_over


def boxes(draw: Draw, *many: int) -> Tensor:
    """Boxes with an area, in images of 12 × 12."""
    corner = draw.between(0, 6, *many, 2)
    return torch.cat((corner, corner + draw.between(2, 6, *many, 2)), -1)


def of_shapes(draw: Draw) -> Iterator[Try]:
    yield Try("one square", (2.0,), (1.0,))
    yield Try("one that is high", (2.0,), (4.0,))
    yield Try("2 sides, 3 ratios", (3.0, 5.0), (0.5, 1.0, 2.0))


def of_places(draw: Draw) -> Iterator[Try]:
    yield Try("one cell", draw(2, 4), 1, 1, 2)
    yield Try("2 rows, 3 columns", draw(1, 4), 2, 3, 4)
    yield Try("2 anchors in each cell", draw(2, 4), 3, 2, 2)


def of_objects(draw: Draw) -> Iterator[Try]:
    anchors = anchors_over(anchors_at((4.0, 6.0), (1.0, 2.0)).double() + 1, 6, 6, 2)
    yield Try("one object", anchors, boxes(draw, 1, 1), height=12, width=12)
    found = boxes(draw, 2, 3)
    found[1, 1:] = 0
    yield Try("2 images, fewer objects in one", anchors, found, height=12, width=12)
    yield Try("other thresholds", anchors, found, height=12, width=10, positive=0.5, negative=0.2)
    exact = anchors[[40, 41]][None]
    yield Try("an anchor as it is", anchors, exact, height=12, width=12)


def of_losses(draw: Draw) -> Iterator[Try]:
    def given(images: int, count: int, labels: list[list[int]]) -> tuple[object, ...]:
        matched = Matched(torch.tensor(labels), boxes(draw, images, count))
        return draw(images, count), draw(images, count, 4), boxes(draw, count), matched

    yield Try("one object", *given(1, 1, [[1]]))
    yield Try("one of each", *given(1, 3, [[1, 0, -1]]))
    yield Try("2 images", *given(2, 4, [[0, 1, 1, -1], [-1, 0, 0, 1]]))
    yield Try("nothing to learn", *given(1, 2, [[-1, -1]]))


EXERCISES = (
    Exercise(
        name="shapes",
        of="model.anchors_at",
        task="Anchors round (0, 0): ratios of height to width, and for each all sides of squares as large.",
        hints=(
            "Height times width is side², height over width is the ratio.",
            "The height is side · √ratio, the width side / √ratio; corners are half of each from 0.",
        ),
        tries=of_shapes,
        gradients=False,
        half=False,
        tolerance=1e-5,
    ),
    Exercise(
        name="places",
        of="model.anchors_over",
        task="The anchors `base` at each cell of the maps, a cell's anchors together, row by row.",
        hints=(
            "The cell at row r and column c moves an anchor by c · stride to the right and r · stride down.",
            "A shift is (x, y, x, y). Broadcast cells by anchors, and flatten.",
        ),
        tries=of_places,
    ),
    Exercise(
        name="match",
        of="model.match",
        task="Section 3.1.2: each anchor's label (1, 0 or -1) and the box of the object it overlaps most.",
        hints=(
            "Anchors that cross the border get -1, and count as overlapping nothing.",
            "1 from `positive` on, 0 below `negative`, else -1.",
            "1 too for an object's best overlap, if it is above 0. Padded objects have none.",
        ),
        tries=of_objects,
        gradients=False,
    ),
    Exercise(
        name="loss",
        of="model.rpn_loss",
        task="Whether there is an object and where, both averaged over the anchors that learn.",
        hints=(
            "Anchors labelled -1 are left out. The score of the others is a logit of being an object.",
            "For objects: smooth L1 of the codes minus what encode says, for the matched box and the anchor.",
            "Add both sums and divide by the number of anchors that learn, 1 at least.",
        ),
        tries=of_losses,
        half=False,
    ),
)
