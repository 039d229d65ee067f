"""Saliency maps: the gradient of a class score with respect to the pixels, in one backward pass.

Simonyan, Vedaldi and Zisserman 2013, "Deep Inside Convolutional Networks: Visualising Image Classification
Models and Saliency Maps", arXiv 1312.6034.

The problem. A network classifies a photograph but gives no reason. It is unknown which pixels matter for a
prediction, and which image the network associates with a class.

The idea. Near one image the score is approximately linear in the pixels, and the gradient gives the weights
of this linear function. The larger the derivative, the less a pixel must change to change the score. One
backward pass gives the map, which is the largest magnitude over the colour channels. Gradient ascent from an
empty image, with a penalty on its norm, gives a picture of the class. Saliency maps are the simplest
explanation method, and the baseline of all others.

This folder. `maps` has the saliency map, the class picture, and two maps that do not use the network.
`network` has the small network and its scenes, which plugins of later papers share. `experiment` measures the
share of a map that lies on the object. `benchmark` times the maps of all classes.
"""

from collections.abc import Callable

from torch import Tensor

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import LOCATES, SPECIFIC, experiment
from .maps import class_gradient, class_model, edges, saliency


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return saliency
