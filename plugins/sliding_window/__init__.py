"""Sliding windows (Mistral 7B): a token looks back one window a layer, and layers carry on what they saw.

Jiang, Sablayrolles, Mensch, Bamford, Chaplot and others 2023, "Mistral 7B", arXiv 2310.06825.

The problem. Full attention takes time that grows with the square of the length, and a cache that grows with
the text: at 32 thousand tokens the cache is what fills the memory.

The idea. A token looks at the W newest tokens alone. What lies further back arrives through the layers: after
k of them from up to k (W - 1) tokens away. The cache holds W tokens, token i in slot i mod W, whatever the
length.

This folder. `model`: the whole decoder (rotated queries and keys in groups, RMSNorm, SwiGLU), attention that
computes nothing but the band, and the rolling cache. `weights` gives released weights our names. `experiment`
trains models of one and of three layers to recall a value, and draws how far each sees.

W counts the token itself, as in the released code; the paper's text speaks of W earlier tokens.

Dimensions: batch, tokens (queries, keys), model (width), heads (of queries), groups (heads of keys and
values), dim (of a head), window (W), vocab.
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
