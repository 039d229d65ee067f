"""Residual networks: every block of layers adds a change to what it was given.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385.

The problem. More layers should not hurt: a deep network can always copy a shallow one and let its other
layers pass on what they get. Yet with depth even the error on the training set rose, although batch
normalisation kept gradients alive: deep networks could have been better, and could not be trained to be.

The idea. Doing nothing must be easy to learn. Let a few layers learn the change F(x) instead of the result,
and add their input to it: weights of zero are then the identity, and every layer starts close to a solution.
The sum costs nothing, and gradients go back through it untouched.

Today. The residual connection is in nearly every deep network, each sub-layer of a Transformer included, and
ResNet-50 became the yardstick of vision.

This folder. `model` has basic blocks and bottlenecks, the shortcuts A and B of section 3.3, the networks of
table 1 for ImageNet and those of 6n + 2 layers for CIFAR-10, plain ones too. The stride is where the paper
has it, in a bottleneck's first 1 × 1 convolution (many later versions, "v1.5", put it into the 3 × 3, with
equal parameters and more work). `experiment` trains 10 and 34 layers, plain and residual, on a task that
needs depth: to mark along a strip what can be reached from a cell, of which ten layers see too little.
With `--data`, `pictures` trains section 4.2's networks on labelled images instead.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DEPTH_COSTS, DEPTH_GAINS, SIZES, experiment
from .model import Convolution, ResNet


@hookimpl
def implementation() -> type[nn.Module]:
    return ResNet
