"""Layer normalisation: normalise the features of each example to mean 0 and variance 1.

Ba, Kiros and Hinton 2016, "Layer Normalization", arXiv 1607.06450.

The problem. Batch normalisation takes its statistics from the mini-batch. An example's output therefore
depends on the other examples, small batches have noisy statistics, and training and inference differ. A
recurrent network would need statistics for every time step.

The idea. Compute the mean and the variance over the features of a layer instead, for each example separately.
No statistic depends on the batch, and training and inference are the same computation. A recurrent network
normalises at every step, which keeps the norm of its state from growing or shrinking.

This folder. `model` implements equations 3 and 4 as written, and with a hand-written gradient. `invariances`
computes table 1 for any normalisation, and the plugins of later papers add their rows. `recurrent` has
section 3.1's network with any normalisation. `experiment` trains figure 6's network with batches of 32 and of
4 (the paper uses 128 and 4). It also trains the recurrent network from orthogonal weights and from weights
four times as large.

Dimensions: batch (any leading axes), features (H in the paper).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import ALONE, RECURRENT, SMALL_BATCHES, TABLE_1, experiment
from .model import LayerNorm, layer_norm, line_by_line


@hookimpl
def implementation() -> type[nn.Module]:
    return LayerNorm
