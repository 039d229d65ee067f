"""The simple recurrent network: memory is the hidden state, fed back.

Elman 1990, "Finding Structure in Time", doi 10.1207/s15516709cog1402_1. What limits it: Pascanu, Mikolov and
Bengio 2012, "On the difficulty of training recurrent neural networks", arXiv 1211.5063.

The problem. A network that is shown a whole sequence at once needs an input for every position, and sees the
same word two positions later as something entirely new.

The idea. Show it one element at a time, and beside it the network's own hidden state from the step before.
Time then has no place of its own in the network: it is in how the state moves. Asked only to predict what
comes next, the state comes to hold what prediction needs. The price was understood later: the gradient
through many steps is a product of as many Jacobians, so it shrinks or grows exponentially.

This folder. `model` has the network as a function and a module. `tasks` has what shows its limit, and what
its successors are measured by: the gradient over lags, and the adding problem. `experiment` trains on Elman's
letters, whose vowels can be predicted and whose consonants cannot; holds the gradient to the bound by the
largest singular value; and adds numbers that lie a few steps back, or fifty. With `--data` it reads a text by
characters instead.

Dimensions: batch, time, inputs (width of an element), hidden (width of the state).
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
