"""REINFORCE: make an action likelier by as much as its reward exceeds what was expected.

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
doi 10.1007/BF00992696.

The problem. A reward says how good an action was, not which would have been better, and no gradient leads
through an action drawn at random, nor through the world that answered it.

The idea. The gradient of the logarithm of an action's probability (its "characteristic eligibility") times
the reward is, on average, the gradient of the expected reward (theorem 1). A baseline taken off the reward
changes nothing in that average, but much in the variance.

This folder. `model` has the estimate as a loss, for one action and for episodes, and the pole on a cart of
Barto, Sutton and Anderson (1983). `experiment` holds the estimate against the exact gradient of a bandit, and
balances the pole with a baseline and without one, each at its own best rate.

Dimensions: batch (draws, or episodes), actions, time, state (of the cart: place, speed, angle, its speed).
"""

from collections.abc import Callable

from torch import Tensor

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import BALANCES, SOONER, UNBIASED, experiment
from .model import episodes, exact_gradient, push, reinforce, rewards_to_come, upright


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return reinforce
