"""Residual networks: every block of layers adds a residual to its input.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385.

The problem. More layers should not hurt, because a deep network can copy a shallow one and compute the
identity in its other layers. Yet even the training error rose with depth, although batch normalisation kept
gradients from vanishing. A better solution existed, but the optimiser did not find it.

The idea. The identity must be easy to learn. A few layers learn the residual F(x) instead of the output, and
their input is added to it. With zero weights the block is the identity, so every block starts close to a
solution. The addition costs almost nothing, and gradients pass through it unchanged.

Today. Nearly every deep network has residual connections, including each sub-layer of a Transformer, and
ResNet-50 became the standard baseline of computer vision.

This folder. `model` has basic blocks and bottlenecks, the shortcuts A and B of section 3.3, the networks of
table 1 for ImageNet and of 6n + 2 layers for CIFAR-10, and their plain counterparts. As in the paper, the
stride is in a bottleneck's first 1 × 1 convolution. Many later versions ("v1.5") put it into the 3 × 3
convolution, which needs the same number of parameters and more operations. `experiment` trains plain and
residual networks of 10 and 34 layers on a task that needs depth: mark the cells of a strip that can be
reached from a given cell. The receptive field of ten layers is too small for this task. With `--data`,
`pictures` trains section 4.2's networks on labelled images instead. `benchmark` times blocks, ResNet-20, and
training on strips.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DEPTH_COSTS, DEPTH_GAINS, SIZES, experiment
from .model import Convolution, ResNet


@hookimpl
def implementation() -> type[nn.Module]:
    return ResNet
