"""L-BFGS: a quasi-Newton method that replaces the matrix by the last few steps.

Liu and Nocedal 1989, "On the limited memory BFGS method for large scale optimization", doi
10.1007/BF01589116.

The problem. BFGS stores n² numbers. With a million weights, the inverse Hessian does not fit in memory.

The idea. H is only multiplied with gradients, and the product follows from the steps and changes of the
gradient that H was built from: two loops over the last m pairs, with 4mn multiplications and 2mn numbers
(Nocedal 1980). A single number replaces the older pairs: the recursion starts from gamma I with
gamma = sᵀy / yᵀy of the newest pair. Each step then has about the right length, and the line search mostly
accepts its first trial.

This folder. `model` has the two loops and the optimiser. `experiment` counts evaluations with and without
that scale, over m, and against BFGS and gradient descent. `benchmark` times the product and minimisations.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import KEEPS, SCALE, experiment
from .model import LBFGS, two_loop


@hookimpl
def implementation() -> type[LBFGS]:
    return LBFGS
