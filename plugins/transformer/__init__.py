"""The Transformer: an encoder and a decoder of nothing but attention and small feed-forward networks.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin 2017, "Attention Is All You Need",
arXiv 1706.03762.

The problem. A recurrent translator reads one word after the other: training cannot be spread over the words
of a sentence, and what the last word needs of the first must survive every step between them.

The idea. Let every position look at every other at once. Attention carries what one position needs of
another in a single step, a feed-forward network works on each position by itself, and since nothing in this
knows order, the position is added to the input as a pattern of sines.

This folder. model.py has the layers of section 3.1 (attention comes from its own paper's folder, the
normalisation from layer normalisation's), the sines of 3.5, the learning rate of 5.3 and the loss of 5.4.
experiment.py counts table 3's parameters, checks what the sines were chosen for, and reverses sequences,
where the first word that is written was the last one read and the last was the first, beside a recurrent
encoder-decoder. benchmark.py times an encoder layer.

Dimensions: batch, source and target (tokens of either), model (d_model), hidden (d_ff).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FAR, OFFSETS, SIZE, experiment
from .model import BIG, DecoderLayer, EncoderLayer, Transformer, learning_rate, sines, smoothed_cross_entropy


@hookimpl
def implementation() -> type[nn.Module]:
    return Transformer
