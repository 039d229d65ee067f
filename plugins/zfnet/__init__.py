"""Deconvnet and occlusion: what excites a unit, and what a score depends on.

Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901.

The problem. AlexNet worked, and nobody could say why, or how to make it better other than by trying.

The idea. Run the network backwards: take one activation, set all others to zero, and go down through the same
filters, transposed; put what comes back where max-pooling had found its maximum, and keep what is positive.
The result, in pixels, is what excited the unit. It showed dead and repeated filters in AlexNet's first layer;
smaller filters and strides there cured that, and won in 2013. And to see what a score depends on, slide a
grey square over the image: when it covers the object, the probability falls.

This folder. `projection` has the way back, `occlusion` the square. The network that is asked is that of the
saliency maps' paper. `experiment` covers one of two digits, and asks where projections lie. Not here: the
network that was made better, which needs ImageNet to show it.
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
