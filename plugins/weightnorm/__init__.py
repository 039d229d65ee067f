"""Weight normalisation: separate parameters for the length and the direction of each weight vector.

Salimans and Kingma 2016, "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep
Neural Networks", arXiv 1602.07868.

The problem. Batch normalisation speeds up training, but makes every example depend on the other examples of
its batch. This noise hurts in reinforcement learning and generative models, and recurrent networks have no
single batch to normalise over.

The idea. Write each unit's weight vector as w = g v / ‖v‖. The set of functions stays the same, but gradient
descent changes. The gradient of v is orthogonal to v and scaled by 1 / ‖v‖, so v grows until the steps have a
suitable size. Statistics are computed only once: before training, lengths and biases are initialised from one
batch so that every unit has mean 0 and variance 1. Optionally, mean-only batch normalisation also subtracts
the batch mean, while g controls the variance.

This folder. `model` implements equation 2 as written and in a faster form that computes one scale per unit.
It also contains the layer, its initialisation and mean-only batch normalisation. `experiment` trains the deep
convolutional network of the plugin `batchnorm`, and separates the effect of the initialisation from that of
the parameterisation. `benchmark` times a convolution. The tables in `dyt` compare weight normalisation with
earlier and later normalisation methods.

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
