"""Dynamic tanh: an element-wise tanh with a learned slope in place of normalisation.

Zhu, Chen, He, LeCun and Liu 2025, "Transformers without Normalization", arXiv 2503.10622.

The problem. Transformers are believed not to train without normalisation layers, each of which needs
statistics over all features of a token. Which part of the layers' effect is necessary?

The idea. In a trained Transformer, layer normalisation scales each token linearly, by a smaller factor if its
values are large. Over all tokens, the outputs plotted against the inputs form a tanh-like curve. Dynamic tanh
therefore replaces the layer by γ tanh(α x) + β, with one learned slope α per layer. This bounds extreme
values, leaves the rest nearly linear, and needs no statistics.

This folder. `model` implements algorithm 1 as written, and with a hand-written gradient. `experiment` trains
a Transformer with layer normalisation, with dynamic tanh, and without either, over a range of learning rates.
It also plots layer normalisation's outputs against its inputs. `story` compares the normalisation layers in
the order of their papers.

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
