"""GQA: several query heads share one head of keys and values.

Ainslie, Lee-Thorp, de Jong, Zemlyanskiy, Lebrón and Sanghai 2023, "GQA: Training Generalized Multi-Query
Transformer Models from Multi-Head Checkpoints", arXiv 2305.13245. One shared head for all queries is
Shazeer's (2019), arXiv 1911.02150.

The problem. A model that writes reads, for every token, the keys and values of all tokens before it, and
those of every head: memory traffic, not arithmetic, takes the time. One head of keys and values for all
queries is fast but costs quality.

The idea. Queries are parted into groups of neighbouring heads, and each group has one head of keys and
values. A model that was trained with all heads is converted: the projections of a group's heads are averaged,
and the model trains on for a twentieth of its steps.

This folder. `model`: attention in groups without a copy of the keys, and the conversion by averaging, by the
first head of each group, or anew. `experiment` trains a small model with all heads, converts it in six ways
and trains each on. `benchmark` times one token that attends to a long cache.

Dimensions: batch, tokens (queries, keys), model (width), heads (of queries), groups (heads of keys and
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
