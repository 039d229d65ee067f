"""GQA: let each group of query heads share one key-value head.

Ainslie, Lee-Thorp, de Jong, Zemlyanskiy, Lebrón and Sanghai 2023, "GQA: Training Generalized Multi-Query
Transformer Models from Multi-Head Checkpoints", arXiv 2305.13245. Multi-query attention, which has a single
shared head, is due to Shazeer (2019), arXiv 1911.02150.

The problem. A decoder reads the keys and values of all earlier tokens and all heads for every token that it
generates, so decoding is limited by memory bandwidth, not by arithmetic. Sharing one head of keys and values
among all queries is fast but lowers the quality.

The idea. Divide the query heads into groups of neighbours, and give each group one head of keys and values.
To convert a trained multi-head model, average the projections of a group's heads, and train for another 5 %
of the original steps.

This folder. `model` has grouped attention that does not copy the keys, and conversion by mean, first head or
random initialisation. `experiment` trains a small multi-head model, converts it in six ways, and trains each
converted model further. `benchmark` times one token that attends to a long cache.

Dimensions: batch, tokens (queries, keys), model (hidden size), heads (of queries), groups (heads of keys and
values), dim (model / heads).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CACHE, EQUAL_HEADS, NEARLY, ORDER, experiment
from .model import GroupedQueryAttention, convert, grouped_attention


@hookimpl
def implementation() -> type[nn.Module]:
    return GroupedQueryAttention
