"""The all convolutional net, and guided backpropagation, which visualises a network without pooling.

Springenberg, Dosovitskiy, Brox and Riedmiller 2014, "Striving for Simplicity: The All Convolutional Net",
arXiv 1412.6806.

The problem. Convolutional networks alternate convolution and max-pooling without evidence that pooling is
needed. A convolution with a stride also reduces the resolution. However, a deconvnet relies on the switches
of max-pooling and cannot visualise a network without pooling.

The idea. Replace each pooling by a convolution with stride 2 and the fully connected layers by 1 × 1
convolutions. To visualise a unit, backpropagate its gradient, and also drop negative signals at each ReLU, as
a deconvnet does. This guided backpropagation needs no switches, and its maps are sharp.

This folder. `model` has the networks of table 2 and the rule for a ReLU. The visualised network comes from
the plugin for saliency maps, and the backward pass from the plugin for the deconvnet. `experiment` compares
how much of each map lies outside the object. The claim that pooling can be replaced without loss is not
tested, because that would need more training than a run allows. After 300 steps on 2,000 images of 16 × 16
(12 maps, batch normalisation, seed 0), errors were 7.0 % with All-CNN-C, 3.2 % with ConvPool-CNN-C and
9.3 % with Strided-CNN-C, so the networks without pooling were still behind.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SHARPER, SIZES, experiment
from .model import AllConvNet, guided


@hookimpl
def implementation() -> type[nn.Module]:
    return AllConvNet
