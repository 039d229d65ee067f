"""Grad-CAM: show which image regions support a given class, in any convolutional network.

Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra 2016, "Grad-CAM: Visual Explanations from Deep Networks
via Gradient-based Localization", arXiv 1610.02391.

The problem. Pixel gradients are detailed but look alike for every class. Class activation maps depend on the
class, but the network must end in global average pooling and a linear layer, and most networks do not.

The idea. The last feature maps encode content and approximate position. The gradient of a class's logit with
respect to a map, averaged over positions, is the map's weight for the class. Sum the maps with these weights
and drop negative values, which support other classes. The network is neither changed nor retrained, whatever
layers follow the maps. With average pooling and a linear layer, the result equals the class activation map.

This folder. `maps` has Grad-CAM and the class activation map that it generalises. The network and the scenes
come from the plugin for saliency maps. `experiment` tests whether the map depends on the class.
`side_by_side` compares the map with the gradient, occlusion, the deconvnet and guided backpropagation on the
same images.
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
