"""S4: state spaces whose kernel is cheap, because their matrix is diagonal but for a term of rank one.

Gu, Goel and Ré 2021, "Efficiently Modeling Long Sequences with Structured State Spaces", arXiv 2111.00396.

The problem. A state space is a recurrence in use and one long convolution in training. Its kernel
c ā^k b̄ needs powers of a matrix for every channel, and HiPPO's matrix, which makes it remember, cannot be
diagonalised in a stable way.

The idea. HiPPO's matrix is a normal matrix, which can be, less a term of rank one. Instead of the kernel take
its generating function at the roots of unity: there the powers sum up to one inverse, Woodbury's identity
takes the term of rank one out, and what is left are sums 1 / (g - λ), one for each root and eigenvalue. An
inverse FFT gives the kernel. The recurrence has the same structure, so that one more sample costs O(order).

This folder. `model`: HiPPO in that form, its kernel by powers and by Cauchy sums, the recurrence, and the
layer; it learns c̃ = c (1 - ā^L) in place of c, as the paper's code does. `experiment` compares the views
in float64, and reads digits pixel by pixel from HiPPO's and from random matrices. `benchmark` times the
kernel, and one more sample.

Dimensions: batch, time, channels (one system each), order (size of a state), half (order / 2: complex
coefficients come in conjugate pairs, of which one is kept).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import GENERATION, HIPPO, VIEWS, experiment
from .model import S4, discretised, hippo_dplr, kernel_by_cauchy, kernel_by_powers, recurrent_c, whole


@hookimpl
def implementation() -> type[nn.Module]:
    return S4
