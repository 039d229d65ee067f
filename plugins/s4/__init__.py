"""S4: state-space models whose kernel is cheap to compute, because their matrix is diagonal plus low-rank.

Gu, Goel and Ré 2021, "Efficiently Modeling Long Sequences with Structured State Spaces", arXiv 2111.00396.

The problem. A state-space model is a recurrence at inference and one long convolution in training. Its kernel
c ā^k b̄ needs powers of a matrix for every channel. HiPPO's matrix gives the model its long memory, but
diagonalising it is numerically unstable.

The idea. HiPPO's matrix is a normal matrix, which is stable to diagonalise, minus a rank-one term. Instead of
the kernel, S4 evaluates the kernel's generating function at the roots of unity, where the sum of the powers
is a single inverse. Woodbury's identity separates the rank-one term, and sums of 1 / (g - λ) over the
eigenvalues λ remain. An inverse FFT gives the kernel. The recurrence has the same structure, so each new
sample costs O(order).

This folder. `model` has HiPPO's matrix in this form, its kernel by powers and by Cauchy sums, the recurrence,
and the layer. The layer learns c̃ = c (1 - ā^L) instead of c, as the paper's code does. `experiment` compares
recurrence, convolution and kernel in float64, and trains layers initialised with HiPPO's matrix or with
random matrices to classify digits pixel by pixel. `benchmark` times the kernel, the generation of a new
sample, and images read pixel by pixel.

Dimensions: batch, time, channels (one system each), order (state size), half (order / 2; complex coefficients
come in conjugate pairs, and one of each pair is stored).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import GENERATION, HIPPO, VIEWS, experiment
from .model import S4, discretised, hippo_dplr, kernel_by_cauchy, kernel_by_powers, recurrent_c, whole


@hookimpl
def implementation() -> type[nn.Module]:
    return S4
