"""Instance normalisation: normalise each channel of each image over its positions.

Ulyanov, Vedaldi and Lempitsky 2016, "Instance Normalization: The Missing Ingredient for Fast Stylization",
arXiv 1607.08022.

The problem. The output of a stylisation network should not depend on the contrast of the content image,
because the style determines the contrast. Batch normalisation mixes the contrasts of a batch. At inference it
uses running averages from training, which do not fit an image of different contrast.

The idea. Compute the mean and the variance per image and channel, in training and at inference. This removes
the contrast of the image and of its channels, and the result does not depend on other images.

This folder. `model` implements the equation as written, and as batch normalisation of one example.
`stylisation` has a small generator and a perceptual loss with random filters. `experiment` trains the
generator with instance and with batch normalisation, on images of different contrasts.

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
