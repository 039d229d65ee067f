"""The microscope: what every unit of a network responds to, in pictures.

OpenAI 2020, "OpenAI Microscope"; the method is that of Olah, Mordvintsev and Schubert 2017, "Feature
Visualization", doi 10.23915/distill.00007.

The problem. Whoever claims that a unit detects something shows the pictures that prove it. Others cannot look
at the same unit without the network, the code and an afternoon.

The idea. Draw all of them once: for every unit of every layer an input optimised for it, beside the pieces of
the data that excite it most. The data show what goes along with the unit's activity, the optimised input what
causes it; where the two differ, the unit is not what one thought. A claim about a unit becomes a link.

This folder. `units` has both kinds of pictures, for the network of the saliency maps' paper and with the
dream's step. `experiment` makes a sheet for each layer and a page for each unit, beside it the same from
before the network learned, and asks whether pictures of classes mean something to another network.
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
