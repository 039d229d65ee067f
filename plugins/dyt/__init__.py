"""Dynamic tanh: in the place of normalisation an element-wise tanh with a learned slope.

Zhu, Chen, He, LeCun and Liu 2025, "Transformers without Normalization", arXiv 2503.10622.

The problem. Every Transformer has normalisation layers, and is said not to train without them. What are they
for? Each takes statistics over all features of a token.

The idea. Look at what layer normalisation does in a trained Transformer: each token is scaled linearly, but
those of large values are scaled less, and over all tokens input and output lie on a curve like a tanh. So put
a tanh there: γ tanh(α x) + β, with one learned slope α a layer. It bounds what is extreme, leaves the rest
nearly linear, and takes no statistics at all.

This folder. `model`: algorithm 1 as it is written, and with one gradient. `experiment` trains a Transformer
with layer normalisation, with dynamic tanh and with neither, from small rates to one far too large, and draws
the curves of the layer normalisations. `story` sets the normalisation layers side by side in the order of
their papers: what each mended of those before it, and what it does not see.

Dimensions: batch (any leading axes), features.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import AS_GOOD, STABLE, experiment
from .model import DynamicTanh, dynamic_tanh, line_by_line
from .story import NO_STATISTICS


@hookimpl
def implementation() -> type[nn.Module]:
    return DynamicTanh
