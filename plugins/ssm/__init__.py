"""State space models: a linear system whose state is a memory, and three ways to compute it.

Gu, Dao, Ermon, Rudra and Ré 2020, "HiPPO: Recurrent Memory with Optimal Polynomial Projections", arXiv
2008.07669. The three views of one system come from Gu et al. 2021, arXiv 2110.13985. S4 and Mamba build on
both papers.

The problem. A state of fixed size must represent a growing past. In recurrent networks, training determines
what the state stores. The state that training finds rarely reaches far back, and it has a fixed time scale.

The idea. Define the state as the coefficients of the polynomial that best fits the whole past. These
coefficients follow a linear differential equation over time, whose matrix is known in closed form (HiPPO). If
all moments of the past have equal weight (LegS), the equation has no time scale. A linear time-invariant
system, once discretised, is a recurrence for inference step by step, and a convolution for training on all
steps at once.

This folder. `model` has the HiPPO matrix and its memory of the whole past, discretisation, recurrence, kernel
and convolution, and a layer with one such system per channel. `experiment` compares the three views,
reconstructs photographs from the memory, and classifies digits shown pixel by pixel at a speed that did not
occur in training. `layers` trains the layer with HiPPO's matrix and with random matrices. `benchmark` times
the views.

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
