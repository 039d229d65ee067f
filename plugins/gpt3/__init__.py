"""GPT-3: show the task in the prompt, a few examples and no training.

Brown, Mann, Ryder, Subbiah, Kaplan and others 2020, "Language Models are Few-Shot Learners", arXiv
2005.14165.

The problem. A language model that is to do a task was still tuned for it: thousands of labels and weights of
its own for each. People need an instruction and an example or two.

The idea. Text is full of repeated patterns, so a model that predicts it well learns to go on with a pattern
that it sees for the first time. Make the model a hundred times larger, write a few examples before the
question, and do not touch the weights. The gain from examples grows with the model. The model is GPT-2's;
every other layer looks back over a band alone.

This folder. `model`: the banded layers in GPT-2's model, and the sizes of the paper's table. `experiment`
trains three sizes on documents that each follow one of many rules, and counts what examples are worth. The
weights were never released.

Dimensions: batch, heads, tokens, keys, dim, examples (in the prompt).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SIZE, STEEPER, experiment
from .model import GPT3, SIZES, locally_banded


@hookimpl
def implementation() -> type[nn.Module]:
    return GPT3
