"""ByT5: a text is its bytes, and the encoder gets the layers that a large vocabulary no longer needs.

Xue, Barua, Constant, Al-Rfou, Narang, Kale, Roberts and Raffel 2021, "ByT5: Towards a token-free future with
pre-trained byte-to-byte models", arXiv 2105.13626.

The problem. A model reads tokens that somebody fixed before it was trained. A letter too few and a word falls
into pieces that were never seen together; a language that was rare then stays expensive for ever.

The idea. T5, read and written in UTF-8 bytes: 256 ids and a few special ones. What the embedding of a
large vocabulary took is given to the layers, and the encoder is made three times as deep as the decoder.
Spans to be left out are 20 bytes long instead of 3 tokens. Texts become several times as long: the price.

This folder. `model`: bytes as ids, gated layers, two depths (attention, relative positions, cache and spans
are T5's). `weights` gives the released parameters our names. `experiment` trains the same network on bytes
and on tokens of clean texts and reads texts with errors. `benchmark` times a step, and an answer in bytes and
in tokens.

Dimensions: batch, source and target (bytes that are read, and written), vocab, model (width), hidden.
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
