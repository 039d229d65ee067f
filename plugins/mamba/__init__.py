"""Mamba: a state space that chooses what to keep.

Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv 2312.00752.

The problem. A linear system that is the same at all times can be trained as a convolution, and costs time
linear in the sequence. But as it treats every input alike, it cannot keep one token and ignore the next for
what they are; attention can, and pays with quadratic time.

The idea. Let the input set the step Δ and the vectors B and C (selection). A large step means: forget, and
take this in; a small one: pass by. A gate of a recurrent network is the simplest case. The convolution is
lost; in its place the recurrence is scanned, with the large states kept in fast memory and never written out.
To go on after a text takes its last state alone, however long the text was.

This folder. `loop` has the scan step by step, `scan` its faster forms (and `kernel` its GPU kernels), `model`
the block and the language model, as a whole and step by step, `weights` the names of released weights.
`experiment` holds Theorem 1, and copies tokens that lie at random positions in noise, with selection and
without. `benchmark` times the scan, a step, and text generation against a Transformer of the same size.
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
