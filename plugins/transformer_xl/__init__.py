"""Transformer-XL: keep what the last segment left behind, and count positions from the query.

Dai, Yang, Yang, Carbonell, Le and Salakhutdinov 2019, "Transformer-XL: Attentive Language Models Beyond a
Fixed-Length Context", arXiv 1901.02860.

The problem. A Transformer reads a text in segments of fixed length. It cannot look beyond the cut, the first
words of each segment have no context at all, and to give each word a full context the window has to be moved
a word at a time, reading everything anew.

The idea. Keep what went into each layer for the last segment, and let the next one look at it: with every
layer the context reaches a memory further back. Absolute positions would make no sense of it, since the same
place in two segments has the same number; so a score depends on what stands at the key and on how far away it
is.

This folder. `model`: the attention, with the shift that computes all distances in one product, and the
language model; `weights` gives the released parameters our names. `experiment` reads a text whose topic lasts
over several segments, with a memory and without, and with memories of several lengths; `arms` has the
networks with other positions.

Dimensions: batch, tokens (of a segment), memory, keys (memory and tokens), heads, dim, model (width), vocab.
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
