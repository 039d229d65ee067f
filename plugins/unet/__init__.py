"""U-Net: sharp segmentation from a few labelled images.

Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv 1505.04597.

The problem. Who labels cells in microscope images labels thirty, not a million. A network that names each
pixel from a patch round it is slow, and must choose: a large patch knows what is there, a small one where.

The idea. Make the way up of a fully convolutional network as deep as the way down, and hand each level of
the one the maps of the same level of the other: what from below, where from the side. Bend the images,
smoothly and anew at every step, for tissue deforms like that; and weigh the pixels between cells that touch.
Thirty images were enough, and the shape is that of most networks that remove noise today.

This folder. `model` has the network of figure 1, the weights of borders and the deformation. `experiment` has
thirty pictures and takes joins and deformation away.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DEFORMS, JOINS, SIZES, experiment
from .model import UNet, border_weights, deformed


@hookimpl
def implementation() -> type[nn.Module]:
    return UNet
