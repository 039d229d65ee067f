"""MEGABYTE: a large model over patches of bytes, and a small model that predicts the bytes within each patch.

Yu, Simig, Flaherty, Aghajanyan, Zettlemoyer and Lewis 2023, "MEGABYTE: Predicting Million-byte Sequences with
Multiscale Transformers", arXiv 2305.07185.

The problem. Without a tokenizer, a text is several times as long, and each byte costs as much computation as
a subword, however easy it is to predict.

The idea. Bytes are grouped into patches of P bytes. A global model attends over patches. It runs once per
patch, and its input is the concatenation of P byte embeddings. A small local model then predicts the bytes of
a patch one after another, conditioned on the output of the global model. Attention spans T / P patches or P
bytes, never T bytes at once. The feed-forward layers of the global model take most of the computation, and
run once per patch.

This folder. `model` has the global and the local model, and generation with a KV cache for each. `experiment`
trains MEGABYTE on source code, and compares it with a plain byte-level decoder that needs the same
computation per byte. `benchmark` times a training step and generation.

Dimensions: batch, bytes (T), patches (K), patch (P), D_G and D_L (hidden sizes of global and local model).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CHEAPER, FASTER, experiment
from .model import Megabyte


@hookimpl
def implementation() -> type[nn.Module]:
    return Megabyte
