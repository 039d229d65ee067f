"""GPT: pre-train a Transformer decoder on unlabelled text, then fine-tune all its weights on few labels.

Radford, Narasimhan, Salimans and Sutskever 2018, "Improving Language Understanding by Generative
Pre-Training" (OpenAI).

The problem. Labelled data are scarce, and unlabelled text is plentiful. Word vectors transfer the meaning of
single words only. Earlier ways to transfer representations of whole sentences needed a different architecture
for each task.

The idea. A Transformer decoder that is trained to predict the next token learns features of words and
sentences. For a task, the input becomes one sequence that ends with an extract token. A linear layer
classifies this token's hidden state, and all weights are fine-tuned for a few epochs, with the
language-modelling loss as an auxiliary loss.

This folder. `model` has the decoder and the task's output layer. It imports attention and layer normalisation
from the plugins of their papers. `weights` renames the released parameters. `experiment` pre-trains on a
synthetic language whose words belong to hidden classes, then fine-tunes on 5 to 100 labels per class to
predict the class of a word. Of the paper's four input formats (section 3.3), only the one for a single text
is implemented. GPT-2's folder has the same decoder with pre-norm blocks, and a KV cache for generation.

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
