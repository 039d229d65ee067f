"""Reformer: look only at what is similar, and calculate backwards what was not kept.

Kitaev, Kaiser and Levskaya 2020, "Reformer: The Efficient Transformer", arXiv 2001.04451.

The problem. Attention compares all pairs of tokens, and training keeps what every layer gave, for the
gradient: a text of 64,000 tokens fits into no memory.

The idea. A softmax hears only the largest scores, so find the keys that are similar and leave out the others:
with queries and keys the same vectors, hash them so that near ones fall into one bucket (which side of random
directions they lie on), sort by bucket, and let each token look at its chunk and the one before. Several
rounds of hashing find what one has missed. And let each layer add to one half of the stream what it makes of
the other: what went in can then be calculated from what came out, and nothing has to be kept.

This folder. `model`: both, and a decoder of them; `weights` gives the parameters of `transformers` our names.
`experiment` names handwritten digits by attending to similar ones, by hashing and at random; memory over
depth and time over length come from the benchmark. Axial positions and feed-forward layers in chunks are not
here.

Dimensions: batch, heads, tokens, dim (of a head), model (width), rounds, chunks, width (of a chunk), vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import HASHED, LONG, REVERSIBLE, experiment
from .model import LSHAttention, Reformer, hashed, inverse, lsh_attention, run_layers, unit_length
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Reformer
