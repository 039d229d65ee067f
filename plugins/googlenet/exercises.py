"""Exercises: write the Inception block, and the loss with auxiliary heads."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Inception, Widths


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("with reductions", Inception(2, Widths(1, 1, 1, 1, 1, 1)), 3 * draw(1, 2, 2, 3))
    yield Try("other widths", Inception(2, Widths(1, 2, 3, 1, 2, 2)), 3 * draw(2, 2, 2, 2))
    yield Try("naive", Inception(2, Widths(2, 0, 1, 0, 1, 0)), 3 * draw(1, 2, 2, 2))


def of_scores(draw: Draw) -> Iterator[Try]:
    yield Try("a weight of 0.4", (draw(2, 2), draw(2, 2), draw(2, 2)), draw.below(2, 2), weight=0.4)
    yield Try("one head", (draw(2, 3), draw(2, 3)), draw.below(3, 2))
    yield Try("2 heads", (draw(3, 2), draw(3, 2), draw(3, 2)), draw.below(2, 3))


EXERCISES = (
    Exercise(
        name="Inception",
        of="model.Inception.forward",
        task="Run the four branches of figure 2 in parallel, with or without reductions.",
        hints=(
            "self.entry computes the 1 × 1 branch and both reductions at once. Apply a ReLU, then split.",
            "A branch without a reduction reads the input directly.",
            "A ReLU follows every convolution. The order is one, three, five, pooled.",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="loss",
        of="model.loss",
        task="Add the cross-entropies of the network and of its auxiliary heads, as in section 5.",
        hints=("The first scores are those of the network itself. Multiply the other losses by `weight`.",),
        tries=of_scores,
    ),
)
