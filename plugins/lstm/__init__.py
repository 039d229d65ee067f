"""Long short-term memory: a cell that is added to, so that the error which flows back through it stays.

Hochreiter and Schmidhuber 1997, doi 10.1162/neco.1997.9.8.1735. The forget gate is from Gers, Schmidhuber and
Cummins 2000, doi 10.1162/089976600300015015.

The problem. In a simple recurrent network the gradient over a lag is a product of as many Jacobians, and
vanishes: what lies fifty steps back is never learned.

The idea. Give the state a path on which nothing multiplies it: a *cell* keeps its value and only has
something added, so that the error on it travels back unchanged (the constant error carousel). *Gates*,
themselves learned, decide what is written, what is shown, and later also what is forgotten. With the forget
gate held at 1 the cell is the one of 1997; every LSTM since has it. What else was different then: the cell's
input and output were squashed by logistic functions to [-2, 2] and [-1, 1], cells shared their gates in
blocks, and the gradient was cut off where it leaves a cell (sections 4 and 5.4).

This folder. `model` has the layer twice: as the equations (`unroll`), and with its own backward pass, which
computes for all steps at once whatever does not wait for the step after (`LongShortTermMemory`). torch's is
faster still: its loop over the steps is not in Python, and each step is one fused operation. `experiment`
takes the gradient over lags and the adding problem from `rnn`, where a simple network of tanh units fails.

Dimensions: batch, time, inputs (width of an element), hidden (width of cell and state). The four gates lie
one after the other in every matrix, in torch's order: i (input), f (forget), g (candidate), o (output).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark, with_cell
from .experiment import CAROUSEL, FLOW, LONG_LAGS, experiment
from .model import LSTM, LongShortTermMemory, unroll, unroll_fast


@hookimpl
def implementation() -> type[nn.Module]:
    return LSTM
