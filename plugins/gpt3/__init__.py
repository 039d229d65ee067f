"""GPT-3: solve tasks from a few examples in the prompt, without training.

Brown, Mann, Ryder, Subbiah, Kaplan and others 2020, "Language Models are Few-Shot Learners", arXiv
2005.14165.

The problem. Language models are fine-tuned for each task, which needs thousands of labels and a separate copy
of the weights. People need only an instruction and an example or two.

The idea. Text is full of repeated patterns, so a good language model learns to continue a pattern that it
sees for the first time. Make the model a hundred times larger, write a few examples before the question, and
do not update the weights. The gain from examples grows with the size of the model. The architecture is
GPT-2's, with locally banded attention in every other layer.

This folder. `model` has the banded layers in GPT-2's model, and the sizes in the paper's table. `experiment`
trains three sizes on documents that each follow one of many rules, and measures the gain from examples. The
paper's weights were never released.

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
