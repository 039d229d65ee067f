"""Fuyu: a decoder of text that sees images of any size, because it has no image encoder.

Bavishi, Elsen, Hawthorne, Nye, Odena, Somani and Taşırlar 2023, "Fuyu-8B: A Multimodal Architecture for AI
Agents", Adept's post with the released model.

The problem. To make a language model see, an image encoder is trained first and bolted on with layers of its
own. It knows one size of images; others are shrunk, cut or filled up to it, and training has stages.

The idea. Cut the image into patches and hand each through one matrix straight into the decoder, where the
embedding of a token would be. At the end of each row stands a token that means just that, so that the same
sequence of positions serves images of any height and width.

This folder. `model`: the decoder of an earlier paper with patches and newlines. `weights` gives released
weights our names. `experiment` asks for what needs rows, on sizes seen in training and on others, with and
without newlines. `benchmark` answers about images of several sizes.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import NEWLINES, SIZE, experiment
from .model import Fuyu, layout
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Fuyu
