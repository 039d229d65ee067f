"""Exercises: generate anchors, assign their training targets, and compute the loss."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Draw, Exercise, Try

from .model import Matched, anchors_at, anchors_over


def boxes(draw: Draw, *many: int) -> Tensor:
    """Boxes of non-zero area, in images of 12 × 12."""
    corner = draw.between(0, 6, *many, 2)
    return torch.cat((corner, corner + draw.between(2, 6, *many, 2)), -1)


def of_shapes(draw: Draw) -> Iterator[Try]:
    yield Try("one square", (2.0,), (1.0,))
    yield Try("a tall one", (2.0,), (4.0,))
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
    yield Try("boxes equal to anchors", anchors, exact, height=12, width=12)


def of_losses(draw: Draw) -> Iterator[Try]:
    def given(images: int, count: int, labels: list[list[int]]) -> tuple[object, ...]:
        matched = Matched(torch.tensor(labels), boxes(draw, images, count))
        return draw(images, count), draw(images, count, 4), boxes(draw, count), matched

    yield Try("one object", *given(1, 1, [[1]]))
    yield Try("one of each", *given(1, 3, [[1, 0, -1]]))
    yield Try("2 images", *given(2, 4, [[0, 1, 1, -1], [-1, 0, 0, 1]]))
    yield Try("no sampled anchor", *given(1, 2, [[-1, -1]]))


EXERCISES = (
    Exercise(
        name="shapes",
        of="model.anchors_at",
        task="Generate anchors around (0, 0), one for each ratio of height to width and each side of a "
        "square of equal area.",
        hints=(
            "Height times width is side², and height over width is the ratio.",
            "The height is side · √ratio and the width side / √ratio. The corners are at ± half of these.",
        ),
        tries=of_shapes,
        gradients=False,
        half=False,
        tolerance=1e-5,
    ),
    Exercise(
        name="places",
        of="model.anchors_over",
        task="Place the anchors in `base` at each cell of the maps, row by row, with the anchors of a cell "
        "next to each other.",
        hints=(
            "The cell at row r and column c moves an anchor by c · stride to the right and r · stride down.",
            "A shift is (x, y, x, y). Broadcast cells by anchors, and flatten.",
        ),
        tries=of_places,
    ),
    Exercise(
        name="match",
        of="model.match",
        task="Section 3.1.2: assign each anchor a label (1, 0 or -1) and the box of the object that it "
        "overlaps most.",
        hints=(
            "Anchors that cross the border get -1, and their overlap counts as 0.",
            "The label is 1 if the overlap is at least `positive`, 0 if it is below `negative`, else -1.",
            (
                "The anchors that overlap an object most also get 1, if that overlap is above 0. Padded "
                "objects get no anchor."
            ),
        ),
        tries=of_objects,
        gradients=False,
    ),
    Exercise(
        name="loss",
        of="model.rpn_loss",
        task="Compute the sum of the objectness loss and the box loss, both averaged over the sampled "
        "anchors.",
        hints=(
            "Leave out anchors labelled -1. A score is the logit of the probability of an object.",
            "For objects, take smooth L1 of the codes minus `encode` of the matched box and the anchor.",
            "Add both sums and divide by the number of sampled anchors, at least 1.",
        ),
        tries=of_losses,
        half=False,
    ),
)
