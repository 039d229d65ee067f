"""T5: every task is a text to read and a text to write.

Raffel, Shazeer, Roberts, Lee, Narang, Matena, Zhou, Li and Liu 2019, "Exploring the Limits of Transfer
Learning with a Unified Text-to-Text Transformer", arXiv 1910.10683.

The problem. Models were pre-trained in many ways and adapted by a layer for each task, so that nobody could
compare what helped: the objective, the architecture, the texts or the size.

The idea. Write every task as text, with a prefix that names it and an answer that is text too: one network,
one loss and one way of writing serve all. Within that frame the paper tries one thing after another. What is
kept: an encoder with a decoder, pre-trained by leaving spans out of a text and writing those alone; positions
as a number added to each score that depends on the distance; normalisation before each sub-layer, no biases.

This folder. `model`: both stacks, relative positions, a cache for writing; `spans`: what is left out and what
is to be written for it; `tasks`: three tasks on a made-up language, told apart by a prefix; `weights` gives
the released parameters our names. `experiment` pre-trains on that language by spans and by whole texts,
learns a task from few examples, and all three at once.

Dimensions: batch, source and target (tokens that are read, and written), vocab, model (width), heads, dim.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CHEAPER, HELPS, SIZE, experiment
from .model import T5, Cache, buckets
from .spans import corrupt, draw_spans, restore
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return T5
