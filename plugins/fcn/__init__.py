"""Fully convolutional networks: a classifier that names every pixel.

Long, Shelhamer and Darrell 2014, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038.

The problem. To name every pixel, a classifier was run on a patch round each of them, thousands of passes for
an image; and a classifier knows what it sees but, after five poolings, no longer where.

The idea. Its hidden layers are convolutions too, over a window of the last maps: run once over a whole image,
it gives a coarse map of scores, which transposed convolutions enlarge to the image's size, and all of it is
trained pixel by pixel. For the detail that pooling removed, scores of finer layers are added on the way up.
Modern segmentation began here.

This folder. `model` has bilinear upsampling, FCN-32s, FCN-16s and FCN-8s on VGG-16, and a small network.
`task` has the pictures; a later paper uses them too. `experiment` lets a coarse network go on training with
and without skips.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SIZE, SKIPS, experiment
from .model import FCN, SmallFCN, bilinear, upsample


@hookimpl
def implementation() -> type[nn.Module]:
    return FCN
