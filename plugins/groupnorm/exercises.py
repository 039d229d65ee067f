"""Exercises: write group normalisation as a formula and by layer normalisation, and ghost batches."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import GhostBatchNorm


def of_images(draw: Draw) -> Iterator[Try]:
    yield Try("2 groups of 2 features", draw(1, 4), 2, draw(4), draw(4), eps=1e-5)
    yield Try("images", draw(2, 4, 2, 3), 2, draw(4), draw(4), eps=1e-5)
    yield Try("one group", draw(2, 3, 2), 1, draw(3), draw(3), eps=1e-5)
    yield Try("one feature per group", draw(2, 3, 4), 3, draw(3), draw(3), eps=0.1)


def of_ghosts(draw: Draw) -> Iterator[Try]:
    yield Try("two ghosts of 2 examples", GhostBatchNorm(2, examples=2), draw(4, 2))
    yield Try("images", GhostBatchNorm(2, examples=1), draw(2, 2, 2, 2))
    yield Try("evaluation", GhostBatchNorm(2, examples=2).eval(), draw(3, 2))


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="Equations 1, 2 and 7: normalise each group of channels over all positions of one example.",
        hints=(
            (
                "Unflatten the channels into (groups, channels per group), and flatten the dimensions of "
                "each group's statistics."
            ),
            "Gain and bias are per channel, after the shape of x is restored.",
        ),
        tries=of_images,
    ),
    Exercise(
        name="through layer norm",
        of="model.group_norm",
        task="Write the same function with layer_norm, where each group of an example is one vector.",
        hints=(
            (
                "Reshape to (batch, groups, -1), with ones as gain and zeros as bias; then use per_feature "
                "for the channels."
            ),
        ),
        tries=of_images,
    ),
    Exercise(
        name="ghost batches",
        of="model.GhostBatchNorm.forward",
        task="Write batch normalisation with statistics over a few successive examples each.",
        hints=(
            "Turn ghosts into channels: (ghosts, examples, ...) → (examples, ghosts · features, ...).",
            "batch_norm normalises each ghost's channels separately; repeat weight and bias.",
            "The averages get the means over ghosts of their means and of their unbiased variances.",
        ),
        tries=of_ghosts,
    ),
)
