"""The Transformer: an encoder and a decoder built from attention and feed-forward networks only.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin 2017, "Attention Is All You Need",
arXiv 1706.03762.

The problem. A recurrent translation model reads one word after another. So training cannot be parallelised
over the words of a sentence, and information from the first word must survive every step until the last word.

The idea. Every position attends to all positions at once. Attention passes information between any two
positions in a single step, and a feed-forward network processes each position separately. Because neither
depends on the order, sinusoidal position encodings are added to the input.

This folder. `model` has the layers of section 3.1, the sinusoids of 3.5, the learning rate of 5.3 and the
loss of 5.4. It imports attention and layer normalisation from the plugins of their papers. `experiment`
counts table 3's parameters, and checks that sinusoids at a fixed offset are linear functions of each other.
It also compares the Transformer with a recurrent encoder-decoder that is trained to reverse sequences. In
this task, each target symbol depends on a source symbol at a different distance. `benchmark` times an encoder
layer.

Dimensions: batch, source and target (tokens), model (d_model), hidden (d_ff).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FAR, OFFSETS, SIZE, experiment
from .model import BIG, DecoderLayer, EncoderLayer, Transformer, learning_rate, sines, smoothed_cross_entropy


@hookimpl
def implementation() -> type[nn.Module]:
    return Transformer
