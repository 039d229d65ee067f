"""ByT5: a T5 that reads and writes bytes, with a deeper encoder in place of a large vocabulary.

Xue, Barua, Constant, Al-Rfou, Narang, Kale, Roberts and Raffel 2021, "ByT5: Towards a token-free future with
pre-trained byte-to-byte models", arXiv 2105.13626.

The problem. A tokeniser is fixed before the model is trained. A missing letter splits a word into tokens that
rarely occurred together in training. Languages that were rare in the tokeniser's data need many tokens.

The idea. Use T5 on UTF-8 bytes, with 256 byte ids and a few special ids. The parameters that the smaller
embedding saves go into the layers, and the encoder is three times as deep as the decoder. Masked spans are 20
bytes long instead of 3 tokens. The drawback is that sequences are several times as long.

This folder. `model` converts bytes to ids, and adds gated layers and separate depths for encoder and decoder
to the T5 plugin's code. `weights` renames the released parameters. `experiment` trains the same network on
bytes and on tokens of clean texts, and tests it on noisy texts. `benchmark` times a training step, and
generation in bytes and in tokens.

Dimensions: batch, source and target (bytes read and written), vocab, model (hidden size), hidden.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import ROBUST, SIZE, experiment
from .model import ByT5, GatedGELU, padded, to_bytes, to_ids
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return ByT5
