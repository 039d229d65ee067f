"""FIM: a model that reads from left to right learns to fill a hole, because texts are put in another order.

Bavarian, Jun, Tezak, Schulman, McLeavey, Tworek and Chen 2022, "Efficient Training of Language Models to Fill
in the Middle", arXiv 2207.14255.

The problem. A model that predicts the next token sees what lies before a hole and not what lies behind it.

The idea. Half of the texts to train on are cut at two places into prefix, middle and suffix, and the middle
is moved to the end, each part behind a token that names it: prefix, suffix, middle (PSM), or suffix, prefix,
middle (SPM). The model and its loss stay as they are, and what is predicted from left to right does not
suffer.

This folder. `model`: the transformation of many texts at once, as one sort. `texts`: a toy's texts, in which
only what follows a hole tells how it must be filled. `experiment` trains with and without reordered texts.
`benchmark` times the transformation.

Dimensions: batch (texts), length (tokens of a text), longer (length + 4: three tokens that name the parts,
and the end).
"""

from collections.abc import Callable

from torch import Tensor

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FILLS, ORDER, experiment
from .model import fill_in_the_middle, restored


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return fill_in_the_middle
