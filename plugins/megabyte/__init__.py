"""MEGABYTE: a large model reads patches of bytes, and a small one spells out each patch.

Yu, Simig, Flaherty, Aghajanyan, Zettlemoyer and Lewis 2023, "MEGABYTE: Predicting Million-byte Sequences with
Multiscale Transformers", arXiv 2305.07185.

The problem. Without a tokenizer a text is several times as long, and each byte, however plain, costs as much
as a word.

The idea. Bytes are taken in patches of P. A global model attends from patch to patch: its width is that of
P bytes side by side, and it runs once a patch. A local model, small, predicts the bytes of a patch one after
another from what the global one says of it. Attention sees T / P patches and P bytes, never T bytes at once,
and the feed-forward layers, where most of the work is, run once a patch.

This folder. `model`: both models, and writing with a cache for each. `experiment` trains on source code
against a plain model of bytes with as much work a byte. `benchmark` times a training step, and the writing of
bytes.

Dimensions: batch, bytes (T), patches (K), patch (P), D_G and D_L (widths of the global and the local model).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CHEAPER, FASTER, experiment
from .model import Megabyte


@hookimpl
def implementation() -> type[nn.Module]:
    return Megabyte
