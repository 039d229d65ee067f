"""Adam: momentum and a step size for each coordinate, both corrected for having started at zero.

Kingma and Ba 2014, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.

The problem. Momentum averages the noise away and rolls along valleys, RMSProp suits each coordinate's scale;
together they were used, but a long memory of squares starts at zero, stays too small for as long as it is
long, and makes the first steps far too large.

The idea. Keep running means of the gradient and of its square, and divide each by the share of the weights
that it has seen so far, 1 − βᵗ: then both are unbiased from the first step on. A step is at most about `lr`
in each coordinate whatever the gradient's scale, and settings become portable: the paper's defaults trained a
whole field's networks for years.

This folder. model.py: algorithm 1, on RMSProp's mean square, in five passes over the weights: torch's fused
kernel needs one, and takes about a third of the time on large tensors. experiment.py gives Adam and its
predecessors the same networks, batches and number of learning rates, on dense, badly scaled and sparse
gradients, and repeats figure 4: a long memory without the correction.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import AT_LEAST_AS_FAST, EITHER_KIND, EQUALLY_TUNED, FIRST_STEPS, SPARSE, experiment
from .model import Adam


@hookimpl
def implementation() -> type[Adam]:
    return Adam
