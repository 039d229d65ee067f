"""Batch normalisation: give every activation mean 0 and variance 1 over the mini-batch.

Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift", arXiv 1502.03167.

The problem. What a layer receives changes its distribution with every step of the layers below. Saturating
units get stuck, so that one must start carefully and learn slowly.

The idea. Make the normalisation a part of the network: subtract the mean of the mini-batch, divide by its
standard deviation, and let the network scale and shift the result. The gradient goes through mean and
deviation too: were they taken for constants, a step could change what the normalisation then undoes, and
weights would grow without end (section 2). In use there is no batch, and averages kept during training take
its place. Why it helps is disputed: Santurkar et al. 2018 (arXiv 1805.11604) found little relation to
shifting distributions, and a smoother loss instead.

This folder. `model`: algorithm 1 as it is written, the same with section 3's gradient, and `BatchNorm` with
the averages of algorithm 2, for layers and for images (section 3.2). `convolutions`: a deep network on noisy
digits, with whatever normalisation it is given; later normalisations are compared in it too. `experiment`
trains figure 1's network and that one, with, without, and with the statistics of the first batch for ever: a
control that starts as a normalised network does, and is not normalised after that.

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
