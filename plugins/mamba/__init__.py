"""Mamba: a selective state space model.

Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv 2312.00752.

The problem. A time-invariant linear system can be trained as a convolution, in time linear in the sequence
length. But its dynamics do not depend on the input, so it cannot keep one token and ignore the next depending
on their content. Attention can, in quadratic time.

The idea. Compute the step size Δ and the vectors B and C from the input (selection). A large step resets the
state to the current input, and a small step ignores the input. The gate of a recurrent network is the
simplest case of selection. A selective SSM can no longer be computed as a convolution. It is computed as a
scan instead, whose expanded states stay in fast memory and are never written to main memory. Generation needs
only the last state, whatever the length of the context.

This folder. `loop` has the reference scan, a loop over time. `scan` has faster scans, and `kernel` their GPU
kernels. `model` has the block and the language model, for whole sequences and for single steps. `weights`
loads released weights. `experiment` checks theorem 1 and trains selective copying with and without selection.
`benchmark` times the scan, a decoding step, and generation, compared with a Transformer of the same size.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark, scan_inputs
from .experiment import COPYING, FAST_SCAN, GATING, THROUGHPUT, Copier, experiment, selective_copying
from .loop import scan_loop
from .model import MAMBA_2_8B, MAMBA_130M, Config, Mamba, MambaBlock, SelectiveSSM
from .scan import SelectiveScan, prefixes, scan_associative, scan_chunked, selective_scan
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Mamba
