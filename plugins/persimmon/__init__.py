"""Persimmon: normalised queries and keys, and a feed-forward layer whose hidden activations are mostly zero.

Elsen, Odena, Nye, Taşırlar, Dao, Hawthorne, Moparthi and Somani 2023, "Releasing Persimmon-8B", Adept's post
with the released model.

The problem. Attention scores are dot products of queries and keys, whose length is unbounded. In training,
they can grow until the softmax attends to a single token. A feed-forward layer multiplies all of its hidden
activations, even those that do not contribute to the output.

The idea. A layer normalisation of each head's queries and keys, before they are rotated, bounds the scores. A
squared ReLU sets many hidden activations to exactly zero, so the matching rows of the second matrix need not
be read.

This folder. `model` has the released decoder, with rotary positions on half of each head, biases and layer
normalisation. `weights` renames released weights. `experiment` trains with and without the norm over a wide
grid of learning rates, and counts zero activations. `benchmark` times the second matrix multiplication of a
feed-forward layer with and without its zeros.

The post has no ablation of the norm, which comes from "Query-Key Normalization for Transformers", arXiv
2010.04245.

Dimensions: batch, tokens, model (hidden size), heads, dim (model / heads), hidden (of a feed-forward layer),
vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import NINETY, SIZE, SKIPPED, SPARSE, WIDER, experiment
from .model import NormalisedAttention, Persimmon, squared_relu, without_zeros
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Persimmon
