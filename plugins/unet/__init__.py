"""U-Net: sharp segmentation from a few labelled images.

Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv
1505.04597.

The problem. Biomedical images are scarce and expensive to label. A sliding-window network classifies each
pixel from a patch around it. It is slow, and its patch size trades context against localisation.

The idea. A fully convolutional network has an expanding path with the same number of levels as its
contracting path. Each level of the expanding path is concatenated with the feature maps of the same level of
the contracting path, which combines coarse context with fine detail. Elastic deformations of the images,
sampled at every step, augment the scarce data, and a weight map emphasises the borders between touching
objects. Thirty images were enough. Most denoising networks have this shape today.

This folder. `model` has the network of figure 1, the sliding window, the border weights and the deformation.
`experiment` trains U-Net on sets of thirty pictures, and compares it with the sliding window and with
training on undeformed images.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DEFORMS, SIZES, WINDOW, experiment
from .model import UNet, border_weights, deformed, join


@hookimpl
def implementation() -> type[nn.Module]:
    return UNet
