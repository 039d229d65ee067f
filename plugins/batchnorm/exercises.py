"""Exercises: write algorithm 1, its backward pass, and the layer with running averages."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import BatchNorm


def of_batches(draw: Draw) -> Iterator[Try]:
    yield Try("3 examples, 2 features", draw(3, 2), draw(2), draw(2), eps=1e-5)
    yield Try("eps 0.5", draw(4, 3), draw(3), draw(3), eps=0.5)
    yield Try("images", draw(2, 3, 2, 3), draw(3), draw(3), eps=1e-5)
    yield Try("one position", draw(3, 2, 1), draw(2), draw(2), eps=1e-5)


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("training", BatchNorm(2), draw(3, 2))
    yield Try("training, images", BatchNorm(2, momentum=0.3), draw(2, 2, 2, 2))
    yield Try("evaluation", used(BatchNorm(3), draw), draw(2, 3))
    yield Try("evaluation, images", used(BatchNorm(2), draw), draw(2, 2, 1, 2))


def used(layer: BatchNorm, draw: Draw) -> BatchNorm:
    layer.running_mean.copy_(draw(len(layer.running_mean)))
    layer.running_var.copy_(draw.between(0.5, 2, len(layer.running_var)))
    return layer.eval()


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.line_by_line",
        task="Algorithm 1: normalise each feature over the batch and all positions, then apply gamma and "
        "beta.",
        hints=(
            (
                "Compute the statistics over dimension 0 and all dimensions from 2 on. per_feature makes "
                "vectors broadcast."
            ),
            "For the variance, divide by the count, not by count - 1. Add eps inside the root.",
        ),
        tries=of_batches,
    ),
    Exercise(
        name="backward",
        of="model._BatchNorm.backward",
        task=(
            "Return the gradients of x, weight and bias, and None for eps. ctx.saved_tensors holds x, "
            "weight, bias, and the batch's mean and variance. ctx.eps is eps."
        ),
        hints=(
            (
                "Sum over the batch and the positions. The bias's gradient is the sum of the gradient, and "
                "the weight's is the sum of the gradient times n, the normalised x."
            ),
            "The gradient of x is weight · rstd · (gradient - mean(gradient) - n · mean(gradient · n)).",
        ),
        tries=of_batches,
        through="model.batch_norm",
    ),
    Exercise(
        name="layer",
        of="model.BatchNorm.forward",
        task="In training, normalise the batch and update the averages. In evaluation, use the averages.",
        hints=(
            "batch_norm returns the result, and the mean and the biased variance of the batch.",
            "Update each average as average ← (1 - momentum) · average + momentum · newest.",
            "Average the unbiased variance, which is the biased variance times count / (count - 1).",
        ),
        tries=of_layers,
    ),
)
