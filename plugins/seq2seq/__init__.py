"""Sequence to sequence: one LSTM encodes a sentence into a vector, and another decodes its translation.

Sutskever, Vinyals and Le 2014, "Sequence to Sequence Learning with Neural Networks", arXiv 1409.3215.

The problem. A network maps vectors of a fixed size to vectors of a fixed size. A translation can have any
length, its words do not correspond one to one to the source, and no alignment is given.

The idea. A stack of LSTMs reads the whole source. Its last states are a fixed-size representation of the
sentence. A second stack starts from these states and generates the translation word by word, each word given
the previous words, until the end token. In addition, the paper reverses the source. The average distance
between corresponding words stays the same, but the first words are now close to each other, which makes
optimisation easier.

This folder. `model` has both stacks, the likelihood of a translation, greedy search and beam search.
`experiment` translates artificial sentences whose words the encoder reads forwards or backwards. `benchmark`
times word-by-word generation with and without a carried state.

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
