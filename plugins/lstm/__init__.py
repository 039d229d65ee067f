"""Long short-term memory: a recurrent network with an additive cell, in which the gradient does not vanish.

Hochreiter and Schmidhuber 1997, doi 10.1162/neco.1997.9.8.1735. The forget gate is from Gers, Schmidhuber and
Cummins 2000, doi 10.1162/089976600300015015.

The problem. In a simple recurrent network, the gradient over a lag is a product of one Jacobian per step and
vanishes, so dependencies over fifty steps are not learned.

The idea. Give the state a path without multiplications. New values are only added to a *cell*, so its
gradient flows back unchanged (the constant error carousel). Learned *gates* control when the cell is written
and read. Later LSTMs also have a forget gate. With the forget gate fixed at 1, the cell is the original
one of 1997. The original also squashed the cell's input and output by logistic functions to [-2, 2] and
[-1, 1]. It shared gates among the cells of a block, and truncated the gradient where it leaves a cell
(sections 4 and 5.4).

This folder. `model` has the layer twice: as the equations (`unroll`), and with a hand-written backward pass
that does most of its computation for all steps at once (`LongShortTermMemory`). torch's LSTM is faster still,
because its loop over the steps is not in Python, and each step is one fused operation. `experiment` measures
the gradient over lags, and trains on the adding problem from `rnn`, which a simple tanh RNN fails to learn.

Dimensions: batch, time, inputs (size of an element), hidden (size of cell and state). The four gates are
stacked in every matrix in torch's order: i (input), f (forget), g (candidate), o (output).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark, with_cell
from .experiment import CAROUSEL, FLOW, LONG_LAGS, experiment
from .model import LSTM, LongShortTermMemory, unroll, unroll_fast


@hookimpl
def implementation() -> type[nn.Module]:
    return LSTM
