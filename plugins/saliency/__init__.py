"""Saliency maps: which pixels matter to a class score is its gradient, in a single backward pass.

Simonyan, Vedaldi and Zisserman 2013, "Deep Inside Convolutional Networks: Visualising Image Classification
Models and Saliency Maps", arXiv 1312.6034.

The problem. A network names what a photograph shows and gives no reason. What did it look at, and what does
it take a class to look like?

The idea. Near one image the score is about linear in the pixels, and the gradient is its weights: where the
derivative is large, a pixel need change least to change the score. One backward pass gives the map, the
largest magnitude over the colours. And the same gradient, followed uphill from an empty image at a price for
its norm, draws a picture of the class. It is the simplest of all explanations, and the one that all others
compare with.

This folder. `maps` has the map, the picture of a class, and two maps that know no network. `network` is the
small network that later papers look into as well, and the scenes that they ask about. `experiment` asks where
the maps lie.
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
