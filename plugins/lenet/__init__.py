"""LeNet-5: learn image features with small filters that are shared by all positions.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
doi 10.1109/5.726791.

The problem. Character recognisers used hand-designed features, and only the classifier on top was trained. A
fully connected network on the pixels could learn both. But it has far too many weights, ignores which pixels
are neighbours, and must learn every stroke separately at each position.

The idea. Each unit of a feature map sees a small window, and all units of a map share one filter. A feature
that is worth detecting at one position is worth detecting at all positions, and a shifted image gives a
shifted map. Between the convolutions, maps are sub-sampled to half their size, so later layers have only
coarse information about a feature's position. The network read millions of cheques. Later convolutional
networks use the same kinds of layers, and are also trained end to end.

This folder. `model` has the squashing function, the sub-sampling, the partial connections of C3, the
output layer and its loss as in the paper. `experiment` counts LeNet-5's weights. It compares a small LeNet
with fully connected networks of the same size and of three times the size, on digits at random positions, and
shows the output of layer F6.

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
