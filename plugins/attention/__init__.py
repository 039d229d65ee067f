"""Attention: average the values at all positions, weighted by how well their keys match a query.

Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762, section 3.2. Attention from a decoder to
its encoder came first: Bahdanau, Cho and Bengio 2014, arXiv 1409.0473.

The problem. A recurrent encoder compresses a sentence into one vector of fixed size, and its decoder
generates the translation from that vector. The longer the sentence, the more information is lost.

The idea. Keep the encoder's state at every position. Each position of the decoder computes a *query*,
compares it with the *key* of each position of the encoder, and averages the *values*, weighted by a softmax
over the similarities. Two additions made attention the building block of whole models. Scores are divided by
the root of the keys' dimension, because the softmax saturates otherwise. The hidden size is split over
*heads*, which attend to different positions at the total cost of one full-size head.

This folder. `model` has equation 1 as a function, and section 3.2.2 as a module for self-attention (queries,
keys and values come from one sequence) and cross-attention (keys and values come from another sequence than
the queries). `experiment` measures the softmax's saturation, counts the parameters and FLOPs of heads, and
compares attention with a fixed vector on a toy translation task with short and long sentences.

Dimensions: batch, heads, queries (positions that attend), keys (positions attended to), tokens (either), dim
(size of a query or key), model (hidden size, heads × dim).
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
