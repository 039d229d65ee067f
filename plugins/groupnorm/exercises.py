"""Exercises: the formula, the same through layer normalisation, and ghost batches."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import GhostBatchNorm


def of_images(draw: Draw) -> Iterator[Try]:
    yield Try("2 groups of 2 features", draw(1, 4), 2, draw(4), draw(4), eps=1e-5)
    yield Try("images", draw(2, 4, 2, 3), 2, draw(4), draw(4), eps=1e-5)
    yield Try("one group", draw(2, 3, 2), 1, draw(3), draw(3), eps=1e-5)
    yield Try("as many groups as features", draw(2, 3, 4), 3, draw(3), draw(3), eps=0.1)


def of_ghosts(draw: Draw) -> Iterator[Try]:
    yield Try("two ghosts of 2 examples", GhostBatchNorm(2, examples=2), draw(4, 2))
    yield Try("images", GhostBatchNorm(2, examples=1), draw(2, 2, 2, 2))
    yield Try("in use", GhostBatchNorm(2, examples=2).eval(), draw(3, 2))


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="Equations 1, 2 and 7: a group of channels over all positions of one example.",
        hints=(
            (
                "unflatten the channels into (groups, channels of a group), and flatten what a group "
                "is normalised over."
            ),
            "Gain and bias are per channel, after the shape of x is back.",
        ),
        tries=of_images,
    ),
    Exercise(
        name="through layer norm",
        of="model.group_norm",
        task="The same: each group of an example is one vector for layer_norm.",
        hints=(
            (
                "reshape to (batch, groups, -1); its gain is ones, its bias zeros; then per_feature "
                "for the channels."
            ),
        ),
        tries=of_images,
    ),
    Exercise(
        name="ghost batches",
        of="model.GhostBatchNorm.forward",
        task="Batch normalisation whose statistics are over a few successive examples each.",
        hints=(
            "Turn ghosts into channels: (ghosts, examples, ...) → (examples, ghosts · features, ...).",
            "batch_norm normalises each ghost's channels by themselves; weight and bias are repeated.",
            "The averages get the mean over the ghosts of their means, and of their unbiased variances.",
        ),
        tries=of_ghosts,
    ),
)
