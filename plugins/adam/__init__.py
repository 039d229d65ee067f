"""Adam: momentum and a step size for each coordinate, both corrected for having started at zero.

Kingma and Ba 2014, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.

The problem. Momentum averages the noise away and rolls along valleys, RMSProp suits each coordinate's scale;
together they were used, but a long memory of squares starts at zero, stays too small for as long as it is
long, and makes the first steps far too large.

The idea. Keep running means of the gradient and of its square, and divide each by the share of the weights
that it has seen so far, 1 − βᵗ: then both are unbiased from the first step on. A step is at most about `lr`
in each coordinate whatever the gradient's scale, and settings become portable: the paper's defaults trained a
whole field's networks for years.

The result. On a network with dropout Adam trains further than SGD, the heavy ball and Nesterov momentum, and
about as far as RMSProp. The correction does not help where both are tuned alike. (Its convergence proof has a
gap, which AMSGrad closes: Reddi and others 2018, arXiv 1904.09237.)

This folder. model.py: algorithm 1 on one vector of all weights, line by line. That takes about ten passes
over memory, where torch's fused kernel needs one: level with it for many small tensors, far behind for large
ones. `torch.compile` helps with large ones, but does not reach the kernel while the step number varies.
experiment.py gives Adam and its predecessors the same networks, batches and learning rates, under dropout
(figure 2) and on sparse gradients (figure 1), and repeats figure 4: a long memory without the correction.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DROPOUT, EQUALLY_TUNED, FIRST_STEPS, SPARSE, experiment
from .model import Adam


@hookimpl
def implementation() -> type[Adam]:
    return Adam
