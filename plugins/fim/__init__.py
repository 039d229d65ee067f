"""FIM: train a left-to-right model to infill by moving the middle of each training text to its end.

Bavarian, Jun, Tezak, Schulman, McLeavey, Tworek and Chen 2022, "Efficient Training of Language Models to Fill
in the Middle", arXiv 2207.14255.

The problem. A left-to-right language model sees the text before a gap, but not the text after it.

The idea. Split half of the training texts at two places into prefix, middle and suffix, and move the middle
to the end. A sentinel token before each part marks which part it is. The order is prefix, suffix, middle
(PSM) or suffix, prefix, middle (SPM). Model and loss remain unchanged, and the left-to-right loss does not
get worse.

This folder. `model` transforms a batch of texts with a single sort. `texts` generates synthetic texts with a
gap that can only be filled with the help of the text after it. `experiment` trains with and without reordered
texts. `benchmark` times the transformation.

Dimensions: batch (texts), length (tokens of a text), longer (length + 4, for three sentinel tokens and the
end token).
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
