"""Exercises: write equation 2, the data-dependent initialisation, and mean-only batch normalisation."""

from collections.abc import Iterator

from torch import nn

from readtrack.plugin import Draw, Exercise, Try

from .model import MeanOnlyBatchNorm, WeightNorm


def of_weights(draw: Draw) -> Iterator[Try]:
    yield Try("2 units", draw(2, 3), draw(2, 1))
    yield Try("a convolution", draw(2, 3, 1, 2), draw(2, 1, 1, 1))


def of_starts(draw: Draw) -> Iterator[Try]:
    yield Try("a linear layer", WeightNorm(nn.Linear(3, 2)), draw(4, 3))
    yield Try("a convolution", WeightNorm(nn.Conv2d(2, 3, 2)), draw(2, 2, 3, 3))


def of_means(draw: Draw) -> Iterator[Try]:
    yield Try("training", MeanOnlyBatchNorm(2), draw(3, 2))
    yield Try("training, images", MeanOnlyBatchNorm(2, momentum=0.3), draw(2, 2, 2, 2))
    layer = MeanOnlyBatchNorm(2).eval()
    layer.running_mean.copy_(draw(2))
    yield Try("evaluation", layer, draw(3, 2))


EXERCISES = (
    Exercise(
        name="weights",
        of="model.line_by_line",
        task="Compute equation 2, w = g v / ‖v‖, for each unit separately.",
        hints=("Take the norm over all dimensions except the first, with keepdim=True.",),
        tries=of_weights,
    ),
    Exercise(
        name="start",
        of="model.WeightNorm.start",
        task="Apply equations 5 and 6: set lengths and biases so that each unit has mean 0 and variance 1.",
        hints=(
            "Call the layer, and compute each unit's mean and standard deviation over all other dimensions.",
            (
                "Divide weight_g by the standard deviation. Subtract the mean from the bias, then divide the "
                "bias, too."
            ),
            "Return the new output of the layer.",
        ),
        tries=of_starts,
    ),
    Exercise(
        name="mean only",
        of="model.MeanOnlyBatchNorm.forward",
        task="Apply section 4: subtract each feature's batch mean and add the bias. Update the average in "
        "training.",
        hints=(
            "Take the mean over dimension 0 and all dimensions from 2 on. In evaluation, use running_mean.",
            "In training, move running_mean by momentum towards the detached batch mean.",
        ),
        tries=of_means,
    ),
)
