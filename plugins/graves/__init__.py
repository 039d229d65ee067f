"""Generating sequences: sample handwriting point by point from a recurrent network with a window over text.

Graves 2013, "Generating Sequences With Recurrent Neural Networks", arXiv 1308.0850.

The problem. Pen trajectories are real-valued, and a network that predicts the mean of the next point averages
over all possible continuations. When the text is given, it is not known which point belongs to which letter.

The idea. The network outputs the parameters of a mixture of Gaussians, and the probability that a stroke
ends. A point is sampled from this distribution and fed back as input. A soft window over the text consists of
a few Gaussians whose positions only move forward, by predicted amounts. The network learns the alignment
without supervision. This is an early form of attention. Sampling with a bias towards probable points makes
the handwriting neater.

This folder. `model` has the mixture, the window, and a network of two LSTMs. `experiment` trains on synthetic
handwriting, with the window and with the mean of the letters. `benchmark` times the mixture's log-density,
and sampled handwriting.

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
