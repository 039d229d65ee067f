"""Newton's method: step to the minimum of the local quadratic model.

Polyak 2007, "Newton's method and its use in optimization", doi 10.1016/j.ejor.2005.06.076, a survey; also
Boyd and Vandenberghe, "Convex Optimization", section 9.5. The method has no single paper: Newton (1669) and
Raphson (1690) solved equations with it, and Kantorovich (1948) proved its convergence rate.

The problem. Gradient descent uses the slope, but not how quickly the slope changes. Where directions differ
in curvature, it zigzags, and each step reduces the error only by a constant factor.

The idea. Solve H d = -g. Close to a minimum where the Hessian H is invertible, each step squares the error,
so the number of correct digits doubles. Far from the minimum, a full step may overshoot and diverge. If the
step is halved until the function value decreases (Armijo's rule), the method converges from any start on a
convex function. A step costs O(n³).

This folder. `model` has `Minimizer`, the base class of methods that evaluate several points in one step (line
searches), and `Newton`. `problems` has the test functions of this family. `experiment` measures the order of
convergence, and tries starts at growing distances from the minimum. `benchmark` times one step, and complete
minimisations.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DAMPED, ORDER, experiment
from .model import Newton, newton_direction


@hookimpl
def implementation() -> type[Newton]:
    return Newton
