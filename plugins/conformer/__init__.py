"""Conformer: attention for what is far away, convolution for what is near, in one block for speech.

Gulati et al. 2020, "Conformer: Convolution-augmented Transformer for Speech Recognition", arXiv 2005.08100.

The problem. Self-attention sees a whole utterance, but has to learn from data that neighbouring frames belong
together. A convolution knows that from the start, but reaches far only through many layers.

The idea. Each block has both, one after the other, between two feed-forward layers that count half. Attention
knows distances and not places (as in Transformer-XL); the convolution is gated, over each channel by itself,
with a batch normalisation behind it.

This folder. `model` has the block under the names of its released weights, the encoder, and the same without
convolution or without attention; `decoding` reads labels from it, greedily and by prefixes. `experiment`
compares the three on spoken digits in noise.

Dimensions: batch, frames and mels of a spectrogram; time (every fourth frame), width, heads.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .decoding import greedy, prefix_search
from .experiment import ATTENTION, CONVOLUTION, PATHS, experiment
from .model import Block, Conformer, RelativeAttention, distances, shift


@hookimpl
def implementation() -> type[nn.Module]:
    return Conformer
