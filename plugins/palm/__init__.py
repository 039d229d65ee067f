"""PaLM: attention and feed-forward side by side, and one head of keys and values for all queries.

Chowdhery, Narang, Devlin and others 2022, "PaLM: Scaling Language Modeling with Pathways", arXiv 2204.02311.

The problem. In a decoder's block the feed-forward layer waits for attention's result, and a model that writes
reads the keys and values of every head for every token.

The idea. Section 2 of the paper lists the choices: both halves of a block read the same normalised input and
are added (parallel layers), so that their matrices can be one product; one head of keys and values;
SwiGLU; rotated queries and keys; no biases; one embedding for input and readout.

This folder. `model`: the decoder with two products of weights a block, and its cache. `experiment` counts
the paper's three sizes, and trains blocks in parallel and in series, with one head and with all. `benchmark`
times a block's training step in both orders, and a token after a long text.

Dimensions: batch, tokens, model (width), heads (of queries), groups (heads of keys and values; the paper's is
one), dim (of a head), hidden (of the feed-forward layer), vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import ONE_HEAD, PARALLEL, SIZE, experiment
from .model import PALM_8B, PALM_62B, PALM_540B, PaLM, ParallelBlock


@hookimpl
def implementation() -> type[nn.Module]:
    return PaLM
