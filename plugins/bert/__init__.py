"""BERT: hide some words and predict them from both sides; then tune the same network for each task.

Devlin, Chang, Lee and Toutanova 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv 1810.04805.

The problem. A model that predicts the next word may not look at it, so each word's vector knows only what
stands on its left. Many tasks ask about a word in its sentence, where the right side says as much.

The idea. Choose 15 % of the words, replace most of them by a mark, and ask for what stood there: now every
layer may look at both sides, for what is asked is not to be seen. Of the chosen words a tenth become another
word and a tenth stay as they are, since no task will show the mark. A second question, whether one sentence
follows another, trains a vector for the whole input.

This folder. `model`: the encoder (GPT's blocks without the causal mask, another GELU, segments), both heads,
and the mask; `weights` gives the released parameters our names. `experiment` pre-trains from both sides and
from the left on a made-up language whose words have several meanings, and tunes each to tell the meanings.

Dimensions: batch, tokens, vocab, model (width).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import BOTH_SIDES, RECURRENT, SIZES, experiment
from .model import BERT, LARGE, Masked, MaskedModel, PreTraining, init_weights, mask_tokens, replaced
from .weights import from_released, trunk_name


@hookimpl
def implementation() -> type[nn.Module]:
    return BERT
