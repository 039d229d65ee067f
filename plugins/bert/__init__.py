"""BERT: a Transformer encoder pre-trained on masked words, then fine-tuned for each task.

Devlin, Chang, Lee and Toutanova 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv 1810.04805.

The problem. A language model that predicts the next word must not see it, so each word's representation
depends on its left context only. Many tasks need the representation of a word in its whole sentence.

The idea. Select 15 % of the tokens, replace most of them by a mask token, and predict the originals. The
targets are hidden, so every layer may attend to both sides. A tenth of the selected tokens become a random
token and a tenth stay as they are, because the mask does not occur in fine-tuning. A second task, to predict
whether one sentence follows another, trains a vector for the whole input.

This folder. `model` has the encoder (GPT's blocks without the causal mask, with exact GELU and segments),
both heads, and the masking. `weights` renames the released parameters. `experiment` pre-trains a
bidirectional and a left-to-right model on a synthetic language of ambiguous words, and fine-tunes both to
disambiguate these words.

Dimensions: batch, tokens, vocab, model (hidden size).
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
