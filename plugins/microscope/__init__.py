"""The microscope: images of what every unit of a network responds to.

OpenAI 2020, "OpenAI Microscope"; the method is that of Olah, Mordvintsev and Schubert 2017, "Feature
Visualization", doi 10.23915/distill.00007.

The problem. A claim that a unit detects something is usually supported by a few pictures. Others cannot
inspect the same unit without the network, the code and an afternoon of work.

The idea. Publish images of all units: for every unit of every layer, an input optimised for it and the
dataset patches that activate it most. The patches show what correlates with the unit's activity, and the
optimised input shows what causes it. Where the two differ, the unit does not detect what the patches suggest.
A claim about a unit can then link to the images of that unit.

This folder. `units` computes both kinds of images, for the saliency paper's network and with DeepDream's
step. `experiment` makes a sheet for each layer and a page for each unit, including images for the untrained
network, and tests whether another network recognises images that are optimised for classes.
"""

from collections.abc import Callable

from torch import Tensor

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import MEANS, experiment
from .units import optimised, responses, strongest


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return optimised
