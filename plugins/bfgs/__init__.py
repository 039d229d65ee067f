"""BFGS: learn the inverse Hessian from how the gradient changed along the steps.

Fletcher 1970, "A new approach to variable metric algorithms", doi 10.1093/comjnl/13.3.317; Broyden 1970, doi
10.1093/imamat/6.1.76; Goldfarb 1970, doi 10.1090/S0025-5718-1970-0258249-6; Shanno 1970, doi
10.1090/S0025-5718-1970-0274029-X. Four people, one formula, one year.

The problem. Newton's method needs second derivatives and n³ operations a step. Davidon, Fletcher and Powell
(1959, 1963) built a model H of the inverse Hessian from gradients, but it suffers when the line search is not
exact: where H has grown too small, it hardly recovers.

The idea. Every step s and the change y of the gradient along it show the curvature in one direction: choose
the H⁺ nearest to H with H⁺ y = s. If the distance is measured on the inverse of H, the result is the update
of Davidon, Fletcher and Powell; measured on H itself, it is this one, which corrects its own mistakes. Then a
line search may stop early, mostly at its first trial.

The result. With a search that stops early BFGS needs a fraction of the evaluations of its predecessor; with
nearly exact searches the two hardly differ.

This folder. model.py has the update, a line search for the strong Wolfe conditions, and the optimiser;
rivals.py the methods before it, under the same search. experiment.py counts evaluations with a loose and a
near-exact search, and sets ours beside scipy's. benchmark.py times the update, and whole minimisations.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CLOSES, LOOSE, experiment
from .model import BFGS, bfgs_update, strong_wolfe, wide_enough


@hookimpl
def implementation() -> type[BFGS]:
    return BFGS
