"""Exercises: reorder texts, and restore them."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import fill_in_the_middle


def of_texts(draw: Draw) -> Iterator[Try]:
    for label, spm in (("PSM", [False]), ("SPM", [True]), ("both", [True, False, True])):
        cuts = draw.below(6, len(spm), 2).sort(1).values
        yield Try(label, 4 + draw.below(9, len(spm), 5), cuts, torch.tensor(spm))
    yield Try("no middle", torch.tensor([[4, 5, 6]]), torch.tensor([[1, 1]]), torch.tensor([False]))


def of_moved(draw: Draw) -> Iterator[Try]:
    for one in of_texts(draw):
        yield Try(one.label, fill_in_the_middle(*one.arguments)[0])


EXERCISES = (
    Exercise(
        name="reorder",
        of="model.fill_in_the_middle",
        task="Split each text at two places, move the middle to the end, and add the sentinel tokens.",
        hints=(
            "PSM: PRE, prefix, SUF, suffix, MID, middle, EOT.",
            "SPM: PRE, SUF, suffix, MID, prefix, middle, EOT.",
            "A single stable sort suffices: append the four special tokens and rank each token by its part.",
        ),
        tries=of_texts,
    ),
    Exercise(
        name="restore",
        of="model.restored",
        task="Restore the original text from either order.",
        hints=("In PSM the prefix is between PRE and SUF. In SPM it directly precedes the middle.",),
        tries=of_moved,
    ),
)
