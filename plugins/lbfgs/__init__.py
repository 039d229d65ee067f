"""L-BFGS: the last few steps stand in for the matrix.

Liu and Nocedal 1989, "On the limited memory BFGS method for large scale optimization", doi
10.1007/BF01589116.

The problem. BFGS keeps n² numbers: with a million weights the model of the inverse Hessian fits nowhere.

The idea. H is only ever multiplied with a gradient, and that product follows from the pairs of steps and
changes of the gradient that made H: two loops over the last m pairs, 4mn multiplications, 2mn numbers
(Nocedal 1980). What the old pairs knew is replaced by one number: begin from gamma I with gamma = sᵀy / yᵀy
of the newest pair, so that each step has about the right length and its first trial is mostly taken.

This folder. model.py has the two loops and the optimiser. experiment.py counts evaluations with and without
that scale, over m, and against BFGS and gradient descent. benchmark.py times the product, and whole
minimisations.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import KEEPS, SCALE, experiment
from .model import LBFGS, two_loop


@hookimpl
def implementation() -> type[LBFGS]:
    return LBFGS
