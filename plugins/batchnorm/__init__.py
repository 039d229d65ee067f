"""Batch normalisation: normalise every activation to mean 0 and variance 1 over the mini-batch.

Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift", arXiv 1502.03167.

The problem. The distribution of a layer's inputs changes with every step of the layers below. Saturating
units get stuck, so training needs a careful initialisation and small learning rates.

The idea. Make the normalisation a part of the network: subtract the mean of the mini-batch, divide by its
standard deviation, and let the network scale and shift the result. The gradient flows through the mean and
the standard deviation too. If both were treated as constants, the normalisation would undo weight updates,
and the weights would grow without bound (section 2). At inference, running averages replace the batch
statistics. Why the method helps is disputed: Santurkar et al. 2018 (arXiv 1805.11604) found little relation
to shifting distributions, but found that the loss becomes smoother.

This folder. `model` implements algorithm 1 as written and with section 3's gradient. Its layer `BatchNorm`
keeps algorithm 2's running averages, for vectors and images (section 3.2). `convolutions` trains a deep
network with any normalisation on noisy digits, and the plugins of later normalisation papers use it too.
`experiment` trains this network and the network of figure 1 with batch normalisation, without it, and with
the statistics of the first batch. The last of these networks starts like a normalised network, but its
statistics then stay fixed. `variants` has its layer, and those of the breaks.

Dimensions: batch, features (channels of an image), positions (none, or height and width).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark, cost
from .experiment import FEWER_STEPS, HIGHER_RATES, IMAGES, experiment
from .model import BatchNorm, batch_norm, line_by_line, per_feature


@hookimpl
def implementation() -> type[nn.Module]:
    return BatchNorm
