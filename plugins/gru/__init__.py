"""The gated recurrent unit: an update gate that keeps the state, a reset gate that forgets it.

Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", arXiv 1406.1078. That such a unit does about as well as an LSTM: Chung et al. 2014, arXiv
1412.3555.

The problem. A simple recurrent network loses what lies many steps back. An LSTM keeps it, and takes a cell
beside the state and four gated parts for it.

The idea. Let the state itself be the memory. An *update gate* z mixes, unit by unit, the old state with a new
candidate: at z = 1 a unit is carried on unchanged, and the error flows back unchanged. A *reset gate* r says
how much of the old state the candidate sees, so that a unit can forget. Two gates, no separate cell. In the
paper the unit is a part of an encoder-decoder that scores phrases for translation, which is not built here.

This folder. `model` has the layer as the equations (`unroll`; also with the reset gate after the matrix, as
cuDNN and torch have it), and with its own backward pass, as the LSTM of `lstm` has one. `experiment` takes
the adding problem from `rnn`, where a simple network of tanh units fails, and shows the update gates on it.

Dimensions: batch, time, inputs (width of an element), hidden (width of the state). The three parts of every
matrix lie one after the other in torch's order: r (reset), z (update), n (candidate, h with a tilde there).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import LONG_LAGS, SIZE, experiment
from .model import GRU, GatedRecurrentUnit, unroll, unroll_fast


@hookimpl
def implementation() -> type[nn.Module]:
    return GRU
