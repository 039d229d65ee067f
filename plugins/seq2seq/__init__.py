"""Sequence to sequence: one LSTM reads a sentence into a vector, another writes its translation from it.

Sutskever, Vinyals and Le 2014, "Sequence to Sequence Learning with Neural Networks", arXiv 1409.3215.

The problem. A network maps vectors of a fixed size to vectors of a fixed size. A translation is as long as it
is, no word of it belongs to one word of the source, and nobody says which belong together.

The idea. Let a stack of LSTMs read the source to its end: its last states are the whole sentence in one
vector of a fixed size. A second stack starts from them and writes word by word, each word given those before
it, until it writes that the sentence has ended. One trick: read the source backwards. Words and their
translations are as far apart on average, but the first ones are now close, and descent finds a way in.

This folder. `model`: both stacks, the likelihood of a translation, greedy and beam search. `experiment`
translates made-up sentences, read as they are and backwards. `benchmark` writes word by word with the state
carried on, and with everything read again.

Dimensions: batch, source (words of a source sentence), target (words of a target), vocab, hidden, layers.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import REVERSING, experiment
from .model import END, Seq2Seq, beam_search, greedy


@hookimpl
def implementation() -> type[nn.Module]:
    return Seq2Seq
