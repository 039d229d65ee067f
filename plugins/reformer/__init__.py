"""Reformer: attention only among similar tokens, and activations that are recomputed instead of stored.

Kitaev, Kaiser and Levskaya 2020, "Reformer: The Efficient Transformer", arXiv 2001.04451.

The problem. Attention compares all pairs of tokens, and training stores the activations of every layer for
the backward pass. A text of 64,000 tokens needs too much memory.

The idea. A softmax is dominated by the largest scores, so attention only needs the keys that are similar to
the query. Queries and keys share their vectors. Locality-sensitive hashing by random rotations puts similar
vectors into the same bucket. Tokens are sorted by bucket, and each token attends to its own chunk and the
previous one. Several rounds of hashing find keys that one round misses. In addition, layers are reversible:
each layer adds a function of one half of the residual stream to the other half, so its inputs can be
recomputed from its outputs, and no activations are stored.

This folder. `model` has hashed attention, reversible layers and a decoder that uses them. `weights` renames
the parameters of `transformers`. `experiment` classifies handwritten digits by attention to similar digits,
with hashed and with random buckets. `benchmark` measures how memory grows with depth and time with length. We
leave out axial positions and chunked feed-forward layers.

Dimensions: batch, heads, tokens, dim (of a head), model (hidden size), rounds, chunks, width (of a chunk),
vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import HASHED, LONG, REVERSIBLE, experiment
from .model import (
    LSHAttention,
    Reformer,
    hashed,
    hashed_twice,
    inverse,
    lsh_attention,
    run_layers,
    unit_length,
)
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Reformer
