"""REINFORCE: raise the probability of an action in proportion to its reward above a baseline.

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
doi 10.1007/BF00992696.

The problem. A reward tells how good an action was, but not which action would have been better. There is no
gradient through a sampled action, nor through the environment that returns the reward.

The idea. The gradient of an action's log-probability (its "characteristic eligibility") times the reward is
an unbiased estimate of the gradient of the expected reward (theorem 1). Subtracting a baseline from the
reward leaves the mean of the estimate unchanged and can reduce its variance greatly.

This folder. `model` has the estimate as a loss, for single actions and for episodes, and the cart-pole
environment of Barto, Sutton and Anderson (1983). `experiment` compares the estimate with the exact gradient
of a bandit, and trains policies that balance the pole with and without a baseline, each at its best learning
rate. `benchmark` times the loss, and learning to balance the pole.

Dimensions: batch (samples or episodes), actions, time, state (position, velocity, angle, angular velocity).
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
