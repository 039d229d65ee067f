"""GPT: learn to predict plain text first, then tune the whole network with few labels.

Radford, Narasimhan, Salimans and Sutskever 2018, "Improving Language Understanding by Generative
Pre-Training" (OpenAI).

The problem. Labels are scarce and plain text is not. Word vectors carry over what single words mean; what was
learned about sentences needed another architecture for each task.

The idea. A Transformer's decoder, trained to predict the next token of plain text, has to find out whatever
helps to predict it. For a task the input is written as one sequence that ends in a token to read from; one
linear layer is added, and all weights are tuned for a few passes, the first loss kept beside the task's.

This folder. `model`: the decoder (attention and normalisation come from their own folders) and the layer for
a task; `weights` gives the released parameters our names. `experiment` pre-trains on a made-up language whose
words belong to hidden classes, and learns to name the class of a word with 5 to 100 labels each. Of the
paper's four ways of writing an input (section 3.3) this folder has that of one text. GPT-2's folder has the
same decoder with its normalisation moved, and a cache to write with.

Dimensions: batch, tokens, vocab, model (width), heads, classes.
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
