"""SGD: descend along noisy gradients, with decreasing step sizes.

Robbins and Monro 1951, "A Stochastic Approximation Method", doi 10.1214/aoms/1177729586.

The problem. Find the root of a function from noisy measurements, for example the dose to which half of the
patients respond, or the weights at which a network's average gradient vanishes. Averaging many measurements
at each point before moving on wastes most of them.

The idea. Take a step after every measurement: w ← w − aₜ g. The step sizes must shrink neither too slowly nor
too fast. With Σ aₜ < ∞ the iterates may stop before they reach the root, and with Σ aₜ² = ∞ the noise may not
die out. If Σ aₜ = ∞ and Σ aₜ² < ∞, w converges to the root. Networks are trained by this loop, although
mostly with other schedules. With a constant step size, the loss stops falling at a noise floor, which is
often low enough.

This folder. `model` has the step, and `Optimizer`, the base class of the later optimisers of this family.
`flat` stores all weights in one vector, whatever the number of tensors. `experiment` measures the noise
floors of constant step sizes and the effect of each of the two conditions. Both results follow from the
theory and serve as illustrations. `trials` has the test problems of the whole family, and `benchmark` its
benchmark cases.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FLOOR, TOO_FAST, experiment
from .model import SGD, Optimizer, Vector


@hookimpl
def implementation() -> type[Optimizer]:
    return SGD
