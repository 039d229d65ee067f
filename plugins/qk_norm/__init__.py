"""Query-key normalisation: attention by cosines times a learned scale.

Henry, Dachapally, Pawar and Chen 2020, "Query-Key Normalization for Transformers", arXiv 2010.04245.

The problem. Dot products have no bound: as queries and keys grow, softmax comes to see one key alone, and
the others get no gradient. Dividing by √dim is right at the start of training only. Layer
normalisation in front of the block does not hold what the projections make of its result.

The idea. Bring each query and each key, head by head, to a length of 1. Scores are then cosines, too small
for softmax to choose by, so one learned number g scales them up; it starts from the length of the sequences,
log2(L² - L). Large models later put layer or RMS normalisation in the place of the length of 1, for
attention that does not diverge at high rates.

This folder. `model`: the equations as they are written, the same through one kernel, and a layer between
rotary queries and keys: a rotation keeps lengths, so that its place does not matter. `experiment` trains
the character model of `rope` with dot products and with cosines, from small rates to one far too large.

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
