"""SGD: follow noisy measurements downhill, in steps that shrink.

Robbins and Monro 1951, "A Stochastic Approximation Method", doi 10.1214/aoms/1177729586.

The problem. Find where a function is zero when each measurement of it comes with noise: the dose to which
half the patients respond, the weights at which a network's average gradient vanishes. Averaging many
measurements at each place before moving on wastes nearly all of them.

The idea. Move after every single measurement, w ← w − aₜ g, by steps that shrink neither too slowly nor too
fast: Σ aₜ = ∞, or the walk may end before it arrives, and Σ aₜ² < ∞, or the noise never dies out. Then w
converges to the root. Every network is trained by this loop, although mostly with other schedules: a constant
step stops at a noise floor, which is often low enough.

This folder. model.py: the step, and `Optimizer`, the frame in which the later optimisers of this family
stand; flat.py lets it work on one vector, into however many tensors the weights are parted. experiment.py
finds the noise floors of constant steps, and what each of the two conditions is good for; both follow from
the theory and are there to be looked at. trials.py has the networks on which the whole family is tried,
benchmark.py the cases on which it is timed.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FLOOR, TOO_FAST, experiment
from .model import SGD, Optimizer, Vector


@hookimpl
def implementation() -> type[Optimizer]:
    return SGD
