"""The gated recurrent unit (GRU): a recurrent network with an update gate and a reset gate.

Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", arXiv 1406.1078. Chung et al. 2014, arXiv 1412.3555, found it about as good as an LSTM.

The problem. A simple recurrent network forgets inputs from many steps ago. An LSTM remembers such inputs, but
needs four gating units, and a memory cell in addition to the hidden state.

The idea. Use the state itself as the memory. An *update gate* z mixes, unit by unit, the old state with a
candidate. At z = 1 the unit keeps its value, and the gradient passes unchanged. A *reset gate* r scales the
old state in the candidate's input, so a unit can forget. There are two gates and no separate cell. In the
paper the unit is part of an encoder-decoder that scores phrases for translation. We implement only the unit.

This folder. `model` implements the layer as in the equations (`unroll`, optionally with the reset gate after
the matrix, as in cuDNN and torch), and with a hand-written backward pass like that of `lstm`. `experiment`
uses the adding problem from `rnn`, where a simple tanh network fails, and plots the update gates on this
problem.

Dimensions: batch, time, inputs (size of an element), hidden (hidden size). The three parts of every matrix
are stacked in torch's order: r (reset), z (update), n (candidate, h with a tilde in the paper).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import LONG_LAGS, SIZE, experiment
from .model import GRU, GatedRecurrentUnit, unroll, unroll_fast


@hookimpl
def implementation() -> type[nn.Module]:
    return GRU
