"""Attention: look at every position at once, each weighted by how well it fits.

Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762, section 3.2. Attention from a decoder to
its encoder came first: Bahdanau, Cho and Bengio 2014, arXiv 1409.0473.

The problem. A recurrent encoder reads a sentence into one vector of fixed size, and its decoder writes the
translation out of that vector: the longer the sentence, the less of it fits.

The idea. Keep the encoder's state at every position. Whoever needs something makes a *query*, compares it
with the *key* of each position, and takes the average of the *values*, weighted by a softmax of the
similarities. Two additions made that the building block of whole models: scores are divided by the root of
the keys' width, or the softmax saturates; and the width is split over *heads*, which look in different places
for the price of one.

This folder. `model`: equation 1 as a function; section 3.2.2 as a module for self-attention (a sequence looks
at itself) and cross-attention (it looks at another). `experiment` measures the saturation, counts what heads
cost, and sets attention against the fixed vector in a toy translation, of short sentences and of long ones.

Dimensions: batch, heads, queries (positions that look), keys (positions looked at), tokens (either), dim
(width of a query or key), model (width of the whole model, heads × dim).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark, one_query_at_a_time
from .experiment import HEADS, NO_BOTTLENECK, SCALING, Translator, experiment
from .model import (
    MultiHeadAttention,
    attention_weights,
    merge_heads,
    scaled_dot_product_attention,
    split_heads,
)


@hookimpl
def implementation() -> type[nn.Module]:
    return MultiHeadAttention
