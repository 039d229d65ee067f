"""Sliding-window attention (Mistral 7B): local attention per layer, a growing receptive field across layers.

Jiang, Sablayrolles, Mensch, Bamford, Chaplot and others 2023, "Mistral 7B", arXiv 2310.06825.

The problem. Full attention takes time quadratic in the sequence length, and its KV cache grows with the text.
At 32 thousand tokens, the cache fills the memory.

The idea. A token attends only to the W newest tokens. Information from earlier tokens passes through the
layers: k layers reach back up to k (W - 1) tokens. The cache holds W tokens for any length of text, with
token i in slot i mod W.

This folder. `model` has the whole decoder (rotary queries and keys, grouped-query attention, RMSNorm,
SwiGLU), attention that computes only the band, and the rolling cache. `weights` renames released weights.
`experiment` trains models with one and three layers to recall a value, and plots accuracy against distance.
`benchmark` times attention over a text, and for one token after a long text.

W counts the token itself, as in the released code. In the paper's text, a token attends to W earlier tokens.

Dimensions: batch, tokens (queries, keys), model (model size), heads (query heads), groups (key-value heads),
dim (of a head), window (W), vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import LINEAR, RELAY, ROLLING, SIZE, experiment
from .model import Mistral, SwiGLU, window_attention
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Mistral
