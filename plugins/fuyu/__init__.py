"""Fuyu: feed image patches of any layout directly into a decoder, without an image encoder.

Bavishi, Elsen, Hawthorne, Nye, Odena, Somani and Taşırlar 2023, "Fuyu-8B: A Multimodal Architecture for AI
Agents", Adept's post with the released model.

The problem. Multimodal language models use a separately pre-trained image encoder with adapter layers. The
encoder accepts only one image size, so images are resized, cropped or padded. Training needs several stages.

The idea. Cut the image into patches. A linear projection turns each patch into a vector that takes the place
of a token embedding. A newline token ends each row of patches, so a one-dimensional sequence of positions can
represent images of any height and width.

This folder. `model` has Persimmon's decoder with patches and newlines. `weights` renames the released
parameters. `experiment` trains decoders with and without newlines to find the column of a mark, and tests
them on image sizes that were seen in training and on unseen sizes. `benchmark` times answers to questions
about images of several sizes.
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
