"""Galactica: a <work> token, after which the model writes its intermediate steps before it answers.

Taylor, Kardas, Cucurull, Scialom, Hartshorn, Saravia, Poulton, Kerkez and Stojnic 2022, "Galactica: A Large
Language Model for Science", arXiv 2211.09085.

The problem. A model that must answer immediately has one forward pass for the answer. It can only guess the
answers to problems that need more sequential steps than it has layers.

The idea. Between <work> and </work> the model writes intermediate steps token by token and reads them again.
They serve as an external memory for computations that do not fit into one forward pass (section 3.1.1).
Numbers are split into digits, so steps can be digits. The training corpus was curated, and the models
were trained on it for four epochs.

This folder. `model` has GPT-2's decoder without biases, in the paper's five sizes. `weights` renames the
released parameters. `experiment` trains models to add chains of digits with written work, with the same
number of empty tokens instead, and with an immediate answer. `benchmark` times the generation of the work.

Dimensions: batch, tokens, model (hidden size), heads, vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SIZE, WORK, experiment
from .model import SIZES, Galactica
from .weights import from_released

NO_EXERCISES = (
    "its model is GPT-2's decoder without biases, and its idea is in the training data. `readtrack practice "
    "gpt2` has you write such a decoder."
)


@hookimpl
def implementation() -> type[nn.Module]:
    return Galactica
