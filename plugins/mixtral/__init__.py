"""Mixtral: eight experts per feed-forward layer, two of which process each token.

Jiang, Sablayrolles, Roux, Mensch and others 2024, "Mixtral of Experts", arXiv 2401.04088.

The problem. More parameters store more facts, but in a dense model every token passes through all parameters.

The idea. Replace each feed-forward layer with eight experts. A linear router picks two experts for each
token. Their outputs are summed, weighted by the softmax of the two chosen logits. The model has the
parameters of all eight experts, at the computational cost of two.

This folder. `model` has the router and the experts. Tokens are sorted by expert, so each expert processes its
tokens in one batch. The decoder comes from `sliding_window`, without its window. `weights` loads released
weights. `experiment` trains dense and sparse layers to memorise a table of facts. `benchmark` times a layer
on one token and on many.

Dimensions: batch, tokens, model (model size), hidden (hidden size of an expert), experts, active (experts per
token).
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
