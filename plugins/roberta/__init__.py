"""RoBERTa: BERT had been stopped too early.

Liu, Ott, Goyal, Du, Joshi, Chen, Levy, Lewis, Zettlemoyer and Stoyanov 2019, "RoBERTa: A Robustly Optimized
BERT Pretraining Approach", arXiv 1907.11692.

The problem. Many models came after BERT, each with an idea and more training; nobody knew which of the two
had helped.

The idea. Keep BERT as it is and train it well: longer, in larger batches, on more and longer texts, without
the question of whether one sentence follows another, and with a mask that is drawn anew each time a text is
read, where BERT had stored ten masks of each. That alone caught up with all that had come after.

This folder. `model`: BERT with positions counted from the filling on and one kind of segment; `weights` gives
the released parameters our names. `experiment` compares one mask a text, ten, and fresh ones at equal passes
over a small corpus, and trains the same network four times as long. What is left out: larger batches (the
paper's table 3) and the vocabulary of bytes, which is that of GPT-2.

Dimensions: batch, tokens, vocab, model (width).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FRESH, SIZE, UNDERTRAINED, VARIED, experiment
from .model import PADDING, RoBERTa
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return RoBERTa
