"""PaLM: attention and feed-forward layer in parallel, and one key-value head shared by all query heads.

Chowdhery, Narang, Devlin and others 2022, "PaLM: Scaling Language Modeling with Pathways", arXiv 2204.02311.

The problem. In a decoder block, the feed-forward layer has to wait for the output of attention. In
generation, the model reads the keys and values of every head for every token.

The idea. The design choices are listed in section 2 of the paper. Attention and the feed-forward layer of a
block read the same normalised input, and their outputs are added (parallel layers), so their matrices can be
fused into one matrix multiplication. All query heads share one key-value head. The feed-forward layer is a
SwiGLU. Position embeddings are rotary. There are no biases, and the input embedding is also the readout.

This folder. `model` has the decoder, which multiplies by only two weight matrices per block, and a KV cache.
`experiment` counts the parameters of the paper's three sizes. It trains parallel and serial blocks, and
blocks with one key-value head and with one per query head. `benchmark` times the training step of a parallel
and a serial block, and the decoding of one token after a long text.

Dimensions: batch, tokens, model (hidden size), heads (query heads), groups (key-value heads; the paper has
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
