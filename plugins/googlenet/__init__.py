"""GoogLeNet: run filters of several sizes in parallel, after 1 × 1 convolutions that reduce their cost.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich 2014, "Going Deeper with
Convolutions", arXiv 1409.4842.

The problem. Deeper and wider networks are more accurate but more expensive. Doubling the channels of
consecutive layers quadruples their computation. Objects come in all sizes, but the filters of a layer have
only one size.

The idea. A block runs filters of 1 × 1, 3 × 3 and 5 × 5 and pooling in parallel, and concatenates their maps.
Because large filters are expensive, 1 × 1 convolutions first reduce the number of input channels. Nine blocks
make 22 layers. Global average pooling replaces the fully connected hidden layers, which hold most of
AlexNet's parameters. Two auxiliary heads send gradients into the middle of the network. GoogLeNet won the
ImageNet challenge in 2014. Later bottleneck blocks also use the 1 × 1 reduction.

This folder. `model` has the block, the network of table 1 and the loss. `experiment` compares Inception
blocks with naive blocks of equal multiply-adds, and counts parameters.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FEWER, REDUCTIONS, experiment
from .model import GoogLeNet, Inception, Widths, loss


@hookimpl
def implementation() -> type[nn.Module]:
    return GoogLeNet
