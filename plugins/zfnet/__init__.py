"""Deconvnet and occlusion: visualising the patterns that excite a unit, and the parts a score depends on.

Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901.

The problem. AlexNet worked, but nobody knew why, or how to improve it other than by trial and error.

The idea. A deconvnet projects one activation back to the pixels: set all other activations to zero, go
backwards through the transposed filters, put each value where max-pooling found its maximum, and keep what is
positive. The projections showed dead and repeated filters in AlexNet's first layer, and smaller filters and
strides there reduced the error. Occlusion shows which parts a score depends on: slide a grey square over the
image and plot the probability of the class.

This folder. `projection` has the backward pass, `occlusion` the square. The network comes from the plugin
`saliency`. `experiment` covers a digit or its surroundings, and measures where projections lie. The claim
that diagnosis finds better architectures is not tested. It is about ImageNet, and a run here has no time to
train AlexNet's first layer and the improved one to convergence.
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
