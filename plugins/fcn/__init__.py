"""Fully convolutional networks: turn a classifier into a network that labels every pixel.

Long, Shelhamer and Darrell 2014, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038.

The problem. Semantic segmentation labels every pixel. Classifying a patch around each pixel takes thousands
of forward passes per image. After five pooling layers, a classifier's features have also lost most of the
spatial detail.

The idea. Treat the fully connected layers as convolutions. The classifier then outputs a coarse map of logits
for an image of any size. Transposed convolutions upsample it, and the whole network is trained with a loss
per pixel. Skip connections add logits from finer layers during upsampling and restore the detail that pooling
removed. Modern segmentation networks descend from this design.

This folder. `model` has bilinear upsampling, FCN-32s, FCN-16s and FCN-8s on VGG-16, and a small network.
`task` generates the images, which the U-Net plugin also uses. `experiment` trains a coarse network, and then
trains it further with and without skips.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SIZE, SKIPS, experiment
from .model import FCN, SmallFCN, bilinear, upsample


@hookimpl
def implementation() -> type[nn.Module]:
    return FCN
