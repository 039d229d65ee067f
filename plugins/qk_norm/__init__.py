"""Query-key normalisation: cosine attention with a learned scale.

Henry, Dachapally, Pawar and Chen 2020, "Query-Key Normalization for Transformers", arXiv 2010.04245.

The problem. Dot products are unbounded. As queries and keys grow, the softmax saturates on a single key and
the others get no gradient. Dividing by √dim is right only at the start of training, and layer normalisation
in front of the block does not bound the projections of its output.

The idea. Normalise each query and each key to length 1, head by head. The scores are then cosines, too small
a range for the softmax, so one learned number g scales them up. It is initialised from the sequence length L
to log2(L² - L). Later large models replace the unit length by layer or RMS normalisation of queries and keys,
so that attention does not diverge at high learning rates.

This folder. `model`: the equations as written, the same through one kernel, and an attention layer that
normalises rotary queries and keys (a rotation keeps lengths, so the order does not matter). `experiment`
trains the character model of `rope` with dot products and with cosines, from small learning rates to one far
too large.

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
