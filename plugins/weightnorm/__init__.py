"""Weight normalisation: the length of each weight vector is a parameter of its own, apart from its direction.

Salimans and Kingma 2016, "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep
Neural Networks", arXiv 1602.07868.

The problem. Batch normalisation speeds training up, and makes every example depend on the others of its
batch. The noise of that hurts in reinforcement learning and generative models, and recurrent networks have no
one batch to look at.

The idea. Write each unit's weight vector as w = g v / ‖v‖. Nothing new can be computed with it, but descent
changes: the gradient of v is at right angles to v and is divided by its length, so that v grows until the
steps are of a fitting size. No statistics are taken, but for once: before training, lengths and biases are
set by one batch so that every unit starts with mean 0 and variance 1. Mean-only batch normalisation may be
put on top: the mean of the batch is taken off, its variance is left to g.

This folder. `model`: equation 2 as it is written, and with one scale a unit, the layer, the start, and
mean-only batch normalisation. `experiment` trains batch normalisation's deep convolutions, and separates what
the start does from what the parameters do. Beside the normalisations before and after it, it stands in the
tables of `dyt`.

Dimensions: units (output features or channels), fan-in (the axes of one unit's weight vector).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FASTER, INVARIANCE, MEAN_ONLY, experiment
from .model import MeanOnlyBatchNorm, WeightNorm, line_by_line, start_from_data, weight_norm


@hookimpl
def implementation() -> type[nn.Module]:
    return WeightNorm
