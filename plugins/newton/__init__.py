"""Newton's method: step to the minimum of the parabola that has the function's slope and curvature.

Polyak 2007, "Newton's method and its use in optimization", doi 10.1016/j.ejor.2005.06.076, a survey; also
Boyd and Vandenberghe, "Convex Optimization", section 9.5. The method has no single paper: Newton (1669) and
Raphson (1690) solved equations with it, Kantorovich (1948) proved how fast it is.

The problem. Gradient descent knows the slope but not how far it holds: where directions differ in curvature
it zigzags, and each step wins the same fraction of a digit.

The idea. Solve H d = -g. Close to a minimum where the Hessian H is invertible, each step squares the error,
so the number of correct digits doubles. Far from it a full step may overshoot and run away; halving it until
the function falls (Armijo's rule) brings it home from anywhere on a convex function. A step costs n³.

This folder. model.py has `Minimizer`, the frame for methods that measure several points in a step (line
searches), and `Newton`. problems.py has the functions that this family is tried on. experiment.py counts
digits, and starts from further and further out. benchmark.py times one step, and whole minimisations.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DAMPED, ORDER, experiment
from .model import Newton, newton_direction


@hookimpl
def implementation() -> type[Newton]:
    return Newton
