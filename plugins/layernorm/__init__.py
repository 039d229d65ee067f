"""Layer normalisation: mean 0 and variance 1 over the features of one example.

Ba, Kiros and Hinton 2016, "Layer Normalization", arXiv 1607.06450.

The problem. Batch normalisation takes its statistics from the mini-batch: an example's result depends on what
else is in the batch, a small batch has poor statistics, training and use differ, and a recurrent network
would need statistics for every time step.

The idea. Turn it by ninety degrees: take mean and variance over the features of a layer, for each example by
itself. Nothing depends on the batch, training and use are the same computation, and a recurrent network
normalises at every step, so that its state neither grows nor shrinks on the way.

This folder. `model`: equations 3 and 4 as they are written, and with one gradient. `invariances`: table 1,
calculated, for any normalisation; later ones add their rows. `recurrent`: section 3.1's network, with
whatever normalisation it is given. `experiment` trains with batches of 32 and of 4, as figure 6 does with 128
and 4, and the recurrent network from orthogonal and from four times larger weights.

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
