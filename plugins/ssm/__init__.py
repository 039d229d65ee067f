"""State spaces: a linear system whose state remembers, and three ways to run it.

Gu, Dao, Ermon, Rudra and Ré 2020, "HiPPO: Recurrent Memory with Optimal Polynomial Projections", arXiv
2008.07669. The three views of one system: Gu et al. 2021, arXiv 2110.13985; S4 and Mamba stand on them.

The problem. A state of fixed size must hold a past that grows. How it does so was left to training, which
finds it hard to reach far back, and fixes a time scale.

The idea. Say what the state shall be: the coefficients of the polynomial that fits the whole past best. As
time goes on these coefficients follow a linear differential equation, whose matrix is known in closed form
(HiPPO). With each moment of the past weighted alike (LegS) the equation has no time scale at all. And a
linear system that does not change with time is, once discretised, a recurrence to run step by step, and a
convolution to train all steps at once.

This folder. `model` has the HiPPO matrix and its memory of all history; discretisation; recurrence, kernel,
convolution; the layer that has one such system for each channel. `experiment` holds the views together, looks
at what the memory keeps of a photograph, and reads digits that are shown pixel by pixel at a speed never
trained on; `layers` trains the layer with HiPPO's matrix and with random ones.

Dimensions: batch, time, channels, order (coefficients in a state, the papers' N).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import MATRIX, MEMORY, TIMESCALE, VIEWS, experiment
from .model import (
    StateSpace,
    bilinear,
    convolve,
    hippo_legs,
    hold_diagonal,
    kernel,
    legendre,
    legs_memory,
    recurrence,
    zero_order_hold,
)


@hookimpl
def implementation() -> type[nn.Module]:
    return StateSpace
