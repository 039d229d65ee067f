"""Longformer: look at the neighbours, and let a few tokens look at everything.

Beltagy, Peters and Cohan 2020, "Longformer: The Long-Document Transformer", arXiv 2004.05150.

The problem. Full attention compares every token with every other: twice the text, four times the work. BERT's
512 tokens are a page, and longer documents had to be cut.

The idea. Each token looks at a window of neighbours; layer upon layer, what it knows of reaches further, as
with convolutions. A few tokens, chosen for the task (the question, the token to classify by), look at all
others and are looked at by all, through projections of their own. Both costs grow linearly with the text, and
the released RoBERTa goes on from its weights, its 512 positions copied eight times.

This folder. `model`: the band as products of small blocks, global tokens beside it, and the encoder;
`weights` gives the released parameters our names. `experiment` asks for one of several facts anywhere in a
text. Windows with gaps (dilation) and windows that grow with the layer, of the paper's models for characters,
are not here.

Dimensions: batch, heads, tokens, dim (of a head), model (width), globals.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import LINEAR, QUESTIONS, SIZE, experiment
from .model import Longformer, LongformerAttention, banded_attention
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Longformer
