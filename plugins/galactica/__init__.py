"""Galactica: a token that says "now I work it out", and a scratchpad behind it.

Taylor, Kardas, Cucurull, Scialom, Hartshorn, Saravia, Poulton, Kerkez and Stojnic 2022, "Galactica: A Large
Language Model for Science", arXiv 2211.09085.

The problem. A model that must answer at once has one pass through its layers for it. What takes more steps
than it has layers it can only guess, however much it knows.

The idea. Between <work> and </work> the model writes its steps, one token after another, and reads them
again: an outer memory for what does not fit into one pass (section 3.1.1). Numbers are split into digits, so
that steps can be digits. The text it was trained on was chosen, and read four times over.

This folder. `model`: GPT-2's decoder without biases, in the paper's five sizes. `weights` gives released
weights our names. `experiment` lets models add up chains of digits: at once, after as many empty tokens, and
with their work written. `benchmark` times the writing of the work.

Dimensions: batch, tokens, model (width), heads, vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SIZE, WORK, experiment
from .model import SIZES, Galactica
from .weights import from_released

NO_EXERCISES = (
    "its model is GPT-2's decoder without biases, and its idea stands in the training text. "
    "`readtrack practice gpt2` has you write such a decoder."
)


@hookimpl
def implementation() -> type[nn.Module]:
    return Galactica
