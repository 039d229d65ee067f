"""Generating sequences: predict one point, draw it, go on; a soft window over the text says what to write.

Graves 2013, "Generating Sequences With Recurrent Neural Networks", arXiv 1308.0850.

The problem. A pen's path is real numbers: a network that predicts the mean of what comes next draws the mean
of all hands. And it is to write a given text, of which nobody says which point belongs to which letter.

The idea. Let the output be the weights, means, widths and correlations of a mixture of Gaussians, and a
probability that the stroke ends; draw from it and feed the point back. Over the text lies a window, a few
Gaussians whose place only moves on, by as much as the network says: it learns by itself where in the text it
is, an early form of attention. Drawn with a bias towards the likely, the hand gets neat.

This folder. `model`: the mixture, the window, and a network of two LSTMs. `experiment` writes words in hands
made by rule, with the window and with the mean of the letters. `benchmark`: the density.

Dimensions: batch, time (points of a stroke), letters, alphabet, components (of a mixture), hidden.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import WINDOW, experiment
from .model import Mixture, Writer, window_weights


@hookimpl
def implementation() -> type[nn.Module]:
    return Writer
