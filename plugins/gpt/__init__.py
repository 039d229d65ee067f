"""GPT: pre-train a Transformer decoder on plain text, then fine-tune all of it with few labels.

Radford, Narasimhan, Salimans and Sutskever 2018, "Improving Language Understanding by Generative
Pre-Training" (OpenAI).

The problem. Labelled data are scarce, and plain text is plentiful. Word vectors transfer the meaning of
single words. Representations of whole sentences needed another architecture for each task.

The idea. A Transformer decoder that is trained to predict the next token of plain text learns features of its
words and sentences. For a task, the input becomes one sequence that ends with an extract token. One linear
layer on this token's hidden state is added, and all weights are fine-tuned for a few epochs, with the
language-modelling loss as an auxiliary loss.

This folder. `model` has the decoder (attention and normalisation come from their own folders) and the task's
output layer; `weights` renames the released parameters. `experiment` pre-trains on a synthetic language whose
words belong to hidden classes, and learns to predict the class of a word from 5 to 100 labels per class. Of
the paper's four input formats (section 3.3) this folder has the one for a single text. GPT-2's folder has the
same decoder with pre-norm blocks, and a KV cache for generation.

Dimensions: batch, tokens, vocab, model (hidden size), heads, classes.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FEW_LABELS, SIZE, experiment
from .model import GPT, Block, Classifier, framed
from .weights import from_released, load_released


@hookimpl
def implementation() -> type[nn.Module]:
    return GPT
