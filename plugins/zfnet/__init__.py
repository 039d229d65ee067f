"""Deconvnet and occlusion: the patterns that excite a unit, and the image regions that a score depends on.

Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901.

The problem. AlexNet worked, but nobody knew why, and improving it took trial and error.

The idea. A deconvnet projects one activation back to the pixels. It sets all other activations to zero, goes
backwards through the transposed filters, puts each value where max-pooling found its maximum, and keeps
positive values. The projections showed dead and repeated filters in AlexNet's first layer. Smaller filters
and strides in that layer reduced the error. Occlusion shows which parts of an image a score depends on: slide
a grey square over the image and plot the probability of the class.

This folder. `projection` has the deconvnet's backward pass, and `occlusion` covers parts of an image with a
grey square. The network comes from the plugin `saliency`. `experiment` covers a digit or its surroundings,
and measures where projections lie. `benchmark` times occlusion maps and the backward pass. The claim that
diagnosis finds better architectures is not tested, because it is about ImageNet. A run here is too short to
train networks with AlexNet's first layer and with the improved first layer to convergence.
"""

from collections.abc import Callable

from torch import Tensor

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import OCCLUSION, PROJECTS, experiment
from .occlusion import occlusion
from .projection import deconvnet, gradient, pull_back


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return pull_back
