"""VGG: what depth alone brings, with filters of 3 × 3 nearly everywhere.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv 1409.1556.

The problem. Networks since AlexNet differed in everything at once: large filters with strides, other widths,
other depths. Nobody knew what depth is worth.

The idea. Hold everything else fixed. Use the smallest filter that knows left from right and up from down,
3 × 3 with stride 1, and stack. Two see 5 × 5, three see 7 × 7, with fewer weights than the large filter and
with a nonlinearity after each; pooling by two doubles the maps. From 11 to 19 layers errors fell, and the
plain design became the favourite body of detection, segmentation and style transfer.

This folder. `model` has the columns of table 1 under torchvision's names, so that its released weights load
as they are, and dense evaluation, which reads the hidden layers as convolutions. `experiment` sets pairs of
3 × 3 layers against single layers of 3 × 3 and of 5 × 5.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DEPTH, SIZES, SMALL_FILTERS, experiment
from .model import TABLE_1, VGG, Stages, dense_head


@hookimpl
def implementation() -> type[nn.Module]:
    return VGG
