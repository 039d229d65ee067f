"""The simple recurrent network: the hidden state is fed back as an input and serves as memory.

Elman 1990, "Finding Structure in Time", doi 10.1207/s15516709cog1402_1. Its limits: Pascanu, Mikolov and
Bengio 2012, "On the difficulty of training recurrent neural networks", arXiv 1211.5063.

The problem. A network that gets a whole sequence at once needs an input for every position, and it treats the
same word two positions later as something entirely new.

The idea. At each step, the network gets one element of the sequence and its own hidden state from the
previous step. Time needs no separate inputs, because the state represents it. The network is trained only to
predict the next element, and its state learns to store the information that this prediction needs. The
drawback was understood later: the gradient over many steps is a product of Jacobians, one per step, so it
shrinks or grows exponentially.

This folder. `model` has the network as a function and as a module. `tasks` has two tests of its limits, which
the plugins of its successors also use: the gradient at each lag, and the adding problem. `experiment` trains
on Elman's letters, whose vowels are predictable and whose consonants are not. It compares the gradient with
the bound that the largest singular value gives, and trains the network to add numbers that lie a few or up to
fifty steps back. With `--data` it trains a character model on a text instead. `benchmark` times a recurrent
layer.

Dimensions: batch, time, inputs (size of an element), hidden (size of the state).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark, cost, layer_inputs
from .experiment import EXPLODING, LONG_LAGS, STRUCTURE, VANISHING, experiment
from .model import RNN, IdentityRNN, unroll
from .tasks import (
    LENGTH,
    Characters,
    Learned,
    Reader,
    adding_problem,
    error_at_adding,
    gradient_over_lags,
    reach_back,
)


@hookimpl
def implementation() -> type[nn.Module]:
    return RNN
