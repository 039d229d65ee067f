"""GoogLeNet: filters of several sizes side by side, behind 1 × 1 layers that make them cheap.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich 2014, "Going Deeper with
Convolutions", arXiv 1409.4842.

The problem. Deeper and wider networks make fewer errors and cost more: doubling the maps of two consecutive
layers takes four times the work. Objects come in all sizes, but the filters of a layer have a single one.

The idea. A block runs filters of 1 × 1, 3 × 3 and 5 × 5 and pooling side by side, and puts their maps one
after the other. Large filters would eat the budget, so 1 × 1 convolutions first cut the number of maps that
they read. Nine blocks make 22 layers; the mean over all places replaces the hidden layers, where AlexNet has
nearly all its parameters, and two auxiliary heads send gradients into the middle. It won in 2014; the 1 × 1
reduction is in every bottleneck since.

This folder. `model` has the block, the network of table 1 and its loss. `experiment` sets blocks with
reductions against naive ones of as many multiply-adds, and counts parameters.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FEWER, REDUCTIONS, experiment
from .model import GoogLeNet, Inception, Widths, loss


@hookimpl
def implementation() -> type[nn.Module]:
    return GoogLeNet
