"""Grad-CAM: which region speaks for the class that was asked for, in any convolutional network.

Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra 2016, "Grad-CAM: Visual Explanations from Deep Networks
via Gradient-based Localization", arXiv 1610.02391.

The problem. Gradients of pixels are fine and look alike for every class. A class activation map is of its
class, but the network must end in a mean and a linear layer, and most do not.

The idea. The last maps know what and, roughly, where. The gradient of the score with respect to a map, meaned
over its places, says how much the map speaks for the class: with these weights the maps are summed, and what
is negative, which speaks for other classes, is left out. Nothing is changed or trained, whatever follows the
maps. Where a mean and a linear layer follow, it is the class activation map.

This folder. `maps` has the map and the one that it generalises. The network that is asked, and the scenes,
are those of the saliency maps' paper. `experiment` asks whether the map follows the class; `side_by_side`
lays it over the same pictures as the gradient, occlusion, the deconvnet and guided backpropagation.
"""

from collections.abc import Callable

from torch import Tensor

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import EQUALS_CAM, FOLLOWS, experiment
from .maps import cam, enlarge, grad_cam


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return grad_cam
