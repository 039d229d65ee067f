"""L-BFGS: a quasi-Newton method that stores the last few steps instead of a matrix.

Liu and Nocedal 1989, "On the limited memory BFGS method for large scale optimization", doi
10.1007/BF01589116.

The problem. BFGS stores an approximate inverse Hessian H, an n × n matrix. With a million weights, it does
not fit in memory.

The idea. A step needs only the product of H with the gradient. Two loops over the last m pairs of a step s
and a gradient change y compute this product, with 4mn multiplications and 2mn stored numbers (Nocedal 1980).
The older pairs are replaced by a single number: the recursion starts from gamma I with gamma = sᵀy / yᵀy of
the newest pair. Each step then has about the right length, and the line search usually accepts its first
trial.

This folder. `model` has the two loops and the optimiser. `experiment` counts evaluations with and without
the scale gamma for several m, and compares L-BFGS with BFGS and gradient descent. `benchmark` times the
product and complete minimisations.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import KEEPS, SCALE, experiment
from .model import LBFGS, two_loop


@hookimpl
def implementation() -> type[LBFGS]:
    return LBFGS
