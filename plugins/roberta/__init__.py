"""RoBERTa: BERT with better pretraining, which shows that BERT was undertrained.

Liu, Ott, Goyal, Du, Joshi, Chen, Levy, Lewis, Zettlemoyer and Stoyanov 2019, "RoBERTa: A Robustly Optimized
BERT Pretraining Approach", arXiv 1907.11692.

The problem. Many models followed BERT. Each of them combined a new idea with more training, so it was unclear
which of the two had helped.

The idea. Keep BERT's architecture and train it well: for more steps, in larger batches, on more and longer
texts, without next-sentence prediction. A new mask is sampled each time a text is read, whereas BERT stored
ten masks for each text. With these changes alone, the model matched BERT's successors.

This folder. `model` is BERT with one segment type and with positions that start after the padding position.
`weights` renames released weights. `claims` has the claims, and `experiment` compares one mask per text, ten
masks, and fresh masks for the same number of passes over a small corpus. It also trains the same network for
four times as many steps. `topics` is a rival without a network.
`benchmark` times the masking of a batch. We leave out larger batches (the paper's table 3) and the byte-level
vocabulary, which is GPT-2's.

Dimensions: batch, tokens, vocab, model (hidden size).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .claims import FRESH, SIZE, UNDERTRAINED, VARIED
from .experiment import experiment
from .model import PADDING, RoBERTa
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return RoBERTa
