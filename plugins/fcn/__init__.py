"""Fully convolutional networks: a classifier that names every pixel.

Long, Shelhamer and Darrell 2014, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038.

The problem. Semantic segmentation labels every pixel. Running a classifier on a patch round each pixel takes
thousands of passes for one image. And a classifier knows what it sees but, after five poolings, not where.

The idea. Read the fully connected layers as convolutions. The classifier then gives a coarse map of scores
for an image of any size, transposed convolutions enlarge it, and the whole network is trained pixel by
pixel. Skips add the scores of finer layers on the way up and restore the detail that pooling removed.
Modern segmentation networks began here.

This folder. `model` has bilinear upsampling, FCN-32s, FCN-16s and FCN-8s on VGG-16, and a small network.
`task` has the pictures, which U-Net uses too. `experiment` trains a coarse network further with and
without skips.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SIZE, SKIPS, experiment
from .model import FCN, SmallFCN, bilinear, upsample


@hookimpl
def implementation() -> type[nn.Module]:
    return FCN
