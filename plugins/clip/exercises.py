"""Exercises: write figure 3's loss, the two towers, and the zero-shot classifier."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import TextTower, VisionTower


def text_tower(vocab: int) -> TextTower:
    return TextTower(vocab, context=4, width=2, heads=1, layers=1, dim=3)


def of_pairs(draw: Draw) -> Iterator[Try]:
    scale = torch.tensor(1.0, dtype=torch.float64)
    yield Try("2 pairs", draw(2, 2), draw(2, 2), scale)
    yield Try("3 pairs, scale 5", draw(3, 2), draw(3, 2), 5 * scale)


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("the end is last", text_tower(4), torch.tensor([[0, 1, 3]]))
    yield Try("padding after the end", text_tower(5), torch.tensor([[1, 4, 0, 0], [2, 0, 1, 4]]))


def of_images(draw: Draw) -> Iterator[Try]:
    tower = VisionTower(size=2, patch=1, width=2, heads=1, layers=1, dim=3)
    yield Try("4 patches", tower, draw(1, 3, 2, 2))
    tower = VisionTower(size=4, patch=2, width=4, heads=2, layers=1, dim=2)
    yield Try("2 heads", tower, draw(2, 3, 4, 4))


def of_prompts(draw: Draw) -> Iterator[Try]:
    yield Try("one prompt each", text_tower(4), [torch.tensor([[1, 3]]), torch.tensor([[2, 3]])])
    prompts = [torch.tensor([[0, 4, 0], [1, 2, 4], [2, 4, 1]]), torch.tensor([[3, 4, 0], [0, 1, 4]])]
    yield Try("several prompts", text_tower(5), prompts)


EXERCISES = (
    Exercise(
        name="loss",
        of="loss.two_cross_entropies",
        task="Compute the symmetric contrastive loss of a batch of pairs.",
        hints=(
            "The logits are the dot products of all images with all texts, times the scale.",
            "Text i belongs to image i: take a cross-entropy over the rows, and one over the columns.",
            "The loss is the mean of the two.",
        ),
        tries=of_pairs,
    ),
    Exercise(
        name="text tower",
        of="model.TextTower.forward",
        task="Compute a text's vector: the hidden state of its end token, projected.",
        hints=("The end token has the highest id, so argmax of the ids gives its position in each text.",),
        tries=of_texts,
    ),
    Exercise(
        name="image tower",
        of="model.VisionTower.forward",
        task="Prepend the summary token to the patches, add the positions, apply the blocks, and project the "
        "summary token's hidden state.",
        hints=(
            "self.patches returns maps. Flatten the positions, and move them before the width.",
            "The summary token comes first and has a position too. Apply norm_first, then the blocks.",
            "Only the first token of the last block's output is normalised and projected.",
        ),
        tries=of_images,
    ),
    Exercise(
        name="classifier",
        of="model.classifier",
        task="Section 3.1.4: compute the weights of a zero-shot classifier from an ensemble of prompts.",
        hints=(
            "Normalise each prompt's vector before you average over a class.",
            "The mean has a norm below 1, so normalise it again.",
        ),
        tries=of_prompts,
    ),
)
