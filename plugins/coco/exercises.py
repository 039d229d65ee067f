"""Exercises: encode masks as run lengths, compute overlaps without decoding, and suppress non-maxima."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .masks import compress, encode


def of_masks(draw: Draw) -> Iterator[Try]:
    yield Try("starts outside", torch.tensor([[False, True, True], [False, False, True]]))
    yield Try("starts inside", torch.tensor([[True, False], [True, True]]))
    yield Try("all inside", torch.ones(2, 2, dtype=torch.bool))
    yield Try("5 × 4", draw.mask(5, 4))


def of_runs(draw: Draw) -> Iterator[Try]:
    yield Try("starts outside", [1, 2, 3], 2, 3)
    yield Try("starts inside", [0, 3, 1, 2], 3, 2)
    yield Try("5 × 4", encode(draw.mask(5, 4)), 5, 4)


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one digit each", compress([1, 2, 3]))
    yield Try("several digits", compress([100, 7, 40]))
    yield Try("differences", compress([5, 30, 6, 31, 4, 90]))
    yield Try("large ones", compress([0, 10_000, 3, 20_000, 77]))


def of_pairs(draw: Draw) -> Iterator[Try]:
    yield Try("one run each", torch.tensor([[1, 3, 2]]), torch.tensor([[2, 3, 1]]))
    yield Try("an empty mask", torch.tensor([[6, 0, 0], [0, 6, 0]]), torch.tensor([[1, 2, 3], [6, 0, 0]]))
    yield Try("several runs", torch.tensor([[0, 2, 3, 4, 3], [1, 1, 1, 1, 8]]), torch.tensor([[2, 5, 2, 3]]))


def of_boxes(draw: Draw) -> Iterator[Try]:
    row = torch.tensor([[0, 0, 4, 4], [1, 0, 5, 4], [3, 0, 7, 4], [9, 9, 10, 10]]).double()
    yield Try("the best is first", row, torch.tensor([0.9, 0.8, 0.7, 0.6]).double(), 0.5)
    yield Try("the best is in between", row, torch.tensor([0.5, 0.9, 0.7, 0.6]).double(), 0.3)
    yield Try("a low threshold", row, torch.tensor([0.5, 0.6, 0.7, 0.8]).double(), 0.1)


EXERCISES = (
    Exercise(
        name="run lengths",
        of="masks.encode",
        task="Compute the lengths of a mask's runs, column by column.",
        hints=(
            "Transpose before you flatten: COCO goes down the columns.",
            "The first run is outside the mask, and has length 0 if the first pixel is inside.",
        ),
        tries=of_masks,
    ),
    Exercise(
        name="decode",
        of="masks.decode",
        task="Decode the mask from the given run lengths.",
        hints=(
            "Every other run is inside, so use repeat_interleave.",
            "The pixels come column by column: reshape them to (width, height), and transpose.",
        ),
        tries=of_runs,
    ),
    Exercise(
        name="from text",
        of="masks.uncompress",
        task="Decode run lengths from COCO's text, which has six bits per character.",
        hints=(
            (
                "Subtract 48. A character holds five bits, lowest first, and a sixth bit that is set if "
                "more characters follow."
            ),
            (
                "If the bit of value 16 is set in the last character, the number is negative. Subtract 1 "
                "shifted past all its bits."
            ),
            "From the fourth number on, the text stores the difference from the number two places before.",
        ),
        tries=of_texts,
    ),
    Exercise(
        name="overlap",
        of="masks.overlap",
        task="Compute the intersection over union of all pairs of masks, from their run lengths.",
        hints=(
            "The simplest way is to unpack each mask into pixels, and count.",
            "To avoid unpacking, count b's pixels before each edge of a's runs, and take differences.",
            "The union is the sum of both areas minus the intersection. Where it is 0, return 0.",
        ),
        tries=of_pairs,
    ),
    Exercise(
        name="suppression",
        of="model.suppressed",
        task="Write non-maximum suppression: return the indices of the kept boxes, the best first.",
        hints=(
            "Go through the boxes by descending score.",
            "Keep a box if no kept box overlaps it by more than the threshold. box_iou compares all pairs.",
        ),
        tries=of_boxes,
    ),
)
