"""Longformer: attention within a sliding window, with a few global tokens that attend to all tokens.

Beltagy, Peters and Cohan 2020, "Longformer: The Long-Document Transformer", arXiv 2004.05150.

The problem. Full attention compares every pair of tokens, so twice the length takes four times the
computation. BERT's 512 tokens are about a page, and longer documents had to be truncated.

The idea. Each token attends to a window of neighbours. The receptive field grows with each layer, as with
convolutions. A few global tokens, chosen for the task (such as the question's tokens or the classification
token), attend to all tokens through separate projections, and all tokens attend to them. Time and memory grow
linearly with the length. The released model starts from RoBERTa's weights, with its 512 position embeddings
copied eight times.

This folder. `model` has banded attention with global tokens, as matrix multiplications of small blocks, and
the encoder. `weights` renames the released parameters. `experiment` trains models to find one of several
facts anywhere in a text. The dilated windows of the paper's character models, and their window sizes that
grow with the layer, are not implemented.

Dimensions: batch, heads, tokens, dim (of a head), model (hidden size), globals (number of global tokens).
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
