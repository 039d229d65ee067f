"""Persimmon: queries and keys are normalised, and most of what a feed-forward layer computes is zero.

Elsen, Odena, Nye, Taşırlar, Dao, Hawthorne, Moparthi and Somani 2023, "Releasing Persimmon-8B", Adept's post
with the released model.

The problem. The scores of attention are products of queries and keys, whose size nothing limits: in training
they can grow until the softmax looks at one token alone. And a feed-forward layer computes with every one of
its hidden activations, whether it says anything or not.

The idea. A layer normalisation of each head's queries and keys, before they are rotated, bounds the scores. A
squared ReLU leaves many hidden activations at exactly zero, whose rows of the second matrix need not be read.

This folder. `model`: the released decoder (half of each head rotated, biases, layer normalisation). `weights`
gives released weights our names. `experiment` trains with and without the norm over a wide grid of rates,
and counts zeros. `benchmark` times the second product of a feed-forward layer with and without its zeros.

The post shows no ablation of the norm; the norm itself is that of "Query-Key Normalization for Transformers",
arXiv 2010.04245.

Dimensions: batch, tokens, model (width), heads, dim (model / heads), hidden (of a feed-forward layer), vocab.
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
