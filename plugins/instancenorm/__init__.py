"""Instance normalisation: mean 0 and variance 1 over the positions of each channel of each picture.

Ulyanov, Vedaldi and Lempitsky 2016, "Instance Normalization: The Missing Ingredient for Fast Stylization",
arXiv 1607.08022.

The problem. A network that redraws pictures in a style should not let the contrast of the picture show in the
result, for the style has a contrast of its own. Batch normalisation mixes the contrasts of the whole batch,
and in use applies averages of training: a picture of another contrast comes out wrong.

The idea. Take mean and variance over one channel of one picture, in training and in use: its contrast, and
that of each of its channels, is gone, and no other picture has a part in it.

This folder. `model`: the equation as it is written, and as batch normalisation of one example.
`stylisation`: a small generator and a perceptual loss with random filters. `experiment` trains it with
either normalisation, on pictures of different contrasts.

Dimensions: batch, features (channels), positions (height and width).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CONTRAST, INVARIANCE, STYLISATION, WITHOUT_CONTRAST, experiment
from .model import InstanceNorm, instance_norm, line_by_line


@hookimpl
def implementation() -> type[nn.Module]:
    return InstanceNorm
