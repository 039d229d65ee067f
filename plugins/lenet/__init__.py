"""LeNet-5: learn the features of an image with small filters that are the same everywhere.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
doi 10.1109/5.726791.

The problem. A reader of characters had features made by hand, and only a classifier on top was trained. A
fully connected network on the pixels could learn both, but it has far too many weights, does not know which
pixels are neighbours, and must learn every stroke separately at each position where it may appear.

The idea. A unit looks at a small window, and all units of a map share one filter: what is worth detecting in
one position is worth detecting in all, and a shifted image gives a shifted map. Between the convolutions,
maps shrink to half their size, so that later layers know roughly where a feature lies, not exactly. The
network read cheques by the million; its layers, trained end to end, are those of every convolutional network
since.

This folder. `model` has the squashing, the sub-sampling, the incomplete connections of C3, the output layer
and its loss as in the paper. `experiment` counts LeNet-5's weights, and sets a small LeNet against fully
connected networks, one of its size and one of three times its size, on digits that stand anywhere in their
field; it shows what F6 makes of a digit.

Dimensions: batch, maps (channels), height and width, kernel (side of a window), units, classes.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FEWER, SHARING, SIZE, experiment
from .model import TABLE_I, Convolution, FullyConnected, LeNet5, Output, SubSampling, loss, squash


@hookimpl
def implementation() -> type[nn.Module]:
    return LeNet5
