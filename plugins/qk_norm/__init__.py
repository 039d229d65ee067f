"""Query-key normalisation: cosine attention with a learned scale.

Henry, Dachapally, Pawar and Chen 2020, "Query-Key Normalization for Transformers", arXiv 2010.04245.

The problem. Dot products are unbounded. As queries and keys grow, the softmax saturates on a single key, and
the other keys get no gradient. Dividing by √dim is correct only at initialisation. Layer normalisation
before the block does not bound the queries and keys, because they are projections of its output.

The idea. Normalise each query and each key to length 1 in each head. The scores are then cosines. Their range
is too small for the softmax, so they are multiplied by a learned scale g. For sequence length L, g is
initialised to log2(L² - L). Later large models apply layer or RMS normalisation to queries and keys instead,
which keeps training from diverging at high learning rates.

This folder. `model` has the equations as written, a version that uses one kernel, and an attention layer that
normalises rotary queries and keys (a rotation preserves lengths, so the order does not matter). `experiment`
trains the character model of `rope` with dot products and with cosines, over a grid of learning rates from
small to far too large. `benchmark` times cosine attention.

Dimensions: batch and heads (any leading axes), queries, keys, dim (of a head).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import BOUNDED, HIGH_RATES, QUALITY, experiment
from .model import QKNormAttention, first_scale, line_by_line, normalised, qk_norm_attention


@hookimpl
def implementation() -> type[nn.Module]:
    return QKNormAttention
