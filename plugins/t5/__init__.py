"""T5: every task maps an input text to an output text.

Raffel, Shazeer, Roberts, Lee, Narang, Matena, Zhou, Li and Liu 2019, "Exploring the Limits of Transfer
Learning with a Unified Text-to-Text Transformer", arXiv 1910.10683.

The problem. Models were pre-trained in many ways and adapted to each task with an additional layer. So it was
impossible to tell what helped: the objective, the architecture, the data or the size.

The idea. Write every task as text: a prefix names the task, and the answer is text, too. One network, one
loss and one decoding procedure serve all tasks. Within this framework the paper compares design choices one
by one. The final model is an encoder-decoder. It is pre-trained to generate only the spans that were removed
from a text. Positions enter as a bias on the attention scores that depends on the distance. Layers use
pre-norm and have no bias vectors.

This folder. `model` has the encoder, the decoder, relative positions, and a KV cache for generation. `spans`
removes spans and makes the targets. `tasks` has three tasks on an artificial language, distinguished by a
prefix. `weights` renames released weights. `experiment` pre-trains on that language with spans and with whole
texts as targets. It then tunes the network on a few examples of one task, and on all three tasks at once.
`benchmark` times a pre-training step and the decoding of one token.

Dimensions: batch, source and target (tokens), vocab, model (hidden size), heads, dim.
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
