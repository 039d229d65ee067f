"""Conformer: self-attention for distant context and convolution for local context, in one block for speech.

Gulati et al. 2020, "Conformer: Convolution-augmented Transformer for Speech Recognition", arXiv 2005.08100.

The problem. Self-attention covers a whole utterance, but has to learn from data that neighbouring frames
belong together. Convolutions have this inductive bias, but need many layers to reach distant frames.

The idea. Each block has self-attention followed by convolution, between two feed-forward layers that are
scaled by one half. Attention uses relative positions (as in Transformer-XL). The convolution is gated and
depthwise, and is followed by batch normalisation.

This folder. `model` has the block, with the parameter names of its released weights, the encoder, and
variants without convolution or without attention. `decoding` has greedy decoding and prefix search for CTC.
`experiment` compares the block with attention alone and with convolution alone on spoken digits in noise.

Dimensions: batch, frames and mels of a spectrogram; time (every fourth frame), width (hidden size), heads.
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
