"""BFGS: approximate the inverse Hessian from the steps and the changes of the gradient along them.

Fletcher 1970, "A new approach to variable metric algorithms", doi 10.1093/comjnl/13.3.317; Broyden 1970, doi
10.1093/imamat/6.1.76; Goldfarb 1970, doi 10.1090/S0025-5718-1970-0258249-6; Shanno 1970, doi
10.1090/S0025-5718-1970-0274029-X. All four published the formula in the same year.

The problem. Newton's method needs second derivatives and n³ operations per step. Davidon, Fletcher and Powell
(1959, 1963) built a model H of the inverse Hessian from gradients, but their method needs accurate line
searches, because H recovers slowly once it is too small in some direction.

The idea. A step s and the change y of the gradient along it show the curvature in one direction. BFGS and its
predecessor both choose the H⁺ nearest to H with H⁺ y = s. If distance is measured between the inverses, the
result is the update of Davidon, Fletcher and Powell (DFP). If it is measured between H⁺ and H, the result is
BFGS, which corrects errors of the model. With BFGS the line search may stop early, usually at its first trial
point.

The result. With an inexact line search BFGS needs fewer evaluations than DFP. With a nearly exact search the
two hardly differ.

This folder. `model` has the update, a line search for the strong Wolfe conditions, and the optimiser.
`rivals` has earlier methods with the same line search. `experiment` counts evaluations with a loose and a
near-exact search, and compares our optimisers with scipy's. `benchmark` times the update, and whole
minimisations.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CLOSES, LOOSE, experiment
from .model import BFGS, bfgs_update, strong_wolfe, wide_enough


@hookimpl
def implementation() -> type[BFGS]:
    return BFGS
