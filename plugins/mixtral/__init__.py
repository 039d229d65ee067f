"""Mixtral: eight experts for each feed-forward layer, two of which process each token.

Jiang, Sablayrolles, Roux, Mensch and others 2024, "Mixtral of Experts", arXiv 2401.04088.

The problem. More parameters hold more, but in a dense model each of them costs time for every token.

The idea. In place of each feed-forward layer stand eight, and a router, one linear map, picks two of them for
each token: their results are added, weighted by the softmax of the two chosen logits. The model has the
parameters of all experts and the cost of two.

This folder. `model`: the router, and experts that each see all their tokens at once, sorted; the decoder is
that of `sliding_window` without its window. `weights` gives released weights our names. `experiment` lets
dense and sparse layers learn a table of facts by heart. `benchmark` times a layer for one token and for many.

Dimensions: batch, tokens, model (width), hidden (of an expert), experts, active (experts that a token meets).
"""

from collections.abc import Callable

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FACTS, FASTER, SIZE, experiment
from .model import Mixtral, SparseExperts, active_parameters, balance_loss, loads
from .weights import from_released


@hookimpl
def implementation() -> Callable[..., nn.Module]:
    return SparseExperts
