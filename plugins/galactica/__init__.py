"""Galactica: after a <work> token, the model writes its intermediate steps before it answers.

Taylor, Kardas, Cucurull, Scialom, Hartshorn, Saravia, Poulton, Kerkez and Stojnic 2022, "Galactica: A Large
Language Model for Science", arXiv 2211.09085.

The problem. A model that must answer immediately has one forward pass for the answer. If a problem needs more
sequential steps than the model has layers, the model can only guess.

The idea. Between <work> and </work> the model writes intermediate steps token by token, and later tokens
attend to them. The steps serve as an external memory for computations that do not fit into one forward pass
(section 3.1.1). Numbers are tokenised digit by digit. The training corpus was curated, and the models were
trained on it for four epochs.

This folder. `model` has GPT-2's decoder without biases, in the paper's five sizes. `weights` renames the
released parameters. `experiment` trains models to add chains of digits in three ways: with written work, with
the same number of empty tokens, and with an immediate answer. `benchmark` times the generation of the work.

Dimensions: batch, tokens, model (hidden size), heads, vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SIZE, WORK, experiment
from .model import SIZES, Galactica
from .weights import from_released

NO_EXERCISES = (
    "its model is GPT-2's decoder without biases, and its idea is in the training data. In `readtrack "
    "practice gpt2` you write such a decoder."
)


@hookimpl
def implementation() -> type[nn.Module]:
    return Galactica
