"""VGG: the effect of depth, with filters of 3 × 3 in nearly all layers.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv 1409.1556.

The problem. Networks after AlexNet differed in everything at once: filter sizes, strides, numbers of feature
maps, and depth. So it was unknown how depth alone affects accuracy.

The idea. Keep everything else fixed. Use the smallest filter that distinguishes left from right and up from
down, 3 × 3 with stride 1, and stack such layers. Two layers have a receptive field of 5 × 5, and three of 7 ×
7, with fewer weights than one large filter and with a nonlinearity after each layer. The number of feature
maps doubles after each pooling by two. Errors fell as the depth grew from 11 to 19 layers. The simple design
became the most popular backbone for detection, segmentation and style transfer.

This folder. `model` has the networks of table 1, with torchvision's parameter names, so torchvision's
released weights load directly. It also has dense evaluation, which treats the hidden layers as convolutions.
`experiment` compares stages of two 3 × 3 layers with stages of a single 3 × 3 or 5 × 5 layer. `benchmark`
times a stage, the classifier head at every position, and the whole network.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DEPTH, SIZES, SMALL_FILTERS, experiment
from .model import TABLE_1, VGG, Stages, dense_head


@hookimpl
def implementation() -> type[nn.Module]:
    return VGG
