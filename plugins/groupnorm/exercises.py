"""Exercises: write group normalisation, as a formula and with layer norm, and ghost batch normalisation."""

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
        task="Apply equations 1, 2 and 7: normalise each group of channels over the positions of an example.",
        hints=(
            (
                "Unflatten the channels into (groups, channels per group), and flatten the dimensions "
                "over which a group's statistics are computed."
            ),
            "Restore the shape of x, then apply each channel's gain and bias.",
        ),
        tries=of_images,
    ),
    Exercise(
        name="through layer norm",
        of="model.group_norm",
        task="Write the same function with layer_norm, where each group of an example is one vector.",
        hints=(
            (
                "Reshape to (batch, groups, -1), with ones as gain and zeros as bias. Then use per_feature "
                "for the channels' gain and bias."
            ),
        ),
        tries=of_images,
    ),
    Exercise(
        name="ghost batches",
        of="model.GhostBatchNorm.forward",
        task="Write batch normalisation in which each statistic covers only a few successive examples.",
        hints=(
            "Turn ghosts into channels: (ghosts, examples, ...) → (examples, ghosts · features, ...).",
            "batch_norm then normalises each ghost's channels separately. Repeat the weight and the bias.",
            "Update the running averages with the mean, over ghosts, of their means and unbiased variances.",
        ),
        tries=of_ghosts,
    ),
)
