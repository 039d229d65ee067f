"""Transformer-XL: cache the hidden states of the last segment, and use relative positions.

Dai, Yang, Yang, Carbonell, Le and Salakhutdinov 2019, "Transformer-XL: Attentive Language Models Beyond a
Fixed-Length Context", arXiv 1901.02860.

The problem. A Transformer reads a text in segments of fixed length. It cannot attend across segment borders,
so the first words of each segment have no context. To give each word a full context, the window must be moved
one word at a time, and the whole window must be recomputed each time.

The idea. Cache the inputs of each layer for the last segment, and let the next segment attend to them. With
every layer, the context reaches one memory length further back. Absolute positions do not work with this
memory, because the same position in two segments has the same encoding. So an attention score depends on the
content of the key and on its distance from the query.

This folder. `model` has the attention, with the shift that computes all distances in one matrix
multiplication, and the language model. `weights` renames released weights. `experiment` trains models with
and without memory on texts whose topic lasts for several segments, and evaluates them with memories of
several lengths. `arms` has the networks with other positions. `benchmark` times the evaluation of the next
segment.

Dimensions: batch, tokens (of a segment), memory, keys (memory and tokens), heads, dim, model (hidden size),
vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FASTER, MEMORY, POSITIONS, SIZE, experiment
from .model import RelativeAttention, TransformerXL, shifted
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return TransformerXL
