"""AlexNet: a deep convolutional network, trained on a million photographs, won by a wide margin.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks".

The problem. Convolutional networks read digits; nobody had shown that they could name what is in a
photograph. That takes a large network, which takes weeks to train and learns its training set by heart.

The idea. Bring all that makes a large network trainable: units that do not saturate (ReLU), filters in two
columns on two GPUs that meet in the third layer alone, normalisation across neighbouring maps, pooling whose
windows overlap, pictures shifted, mirrored and tinted, and dropout: half of the hidden units are left out at
each step, so that none can rely on another. Its 15.3 % top-5 errors against 26.2 % of the next turned
computer vision to deep learning. Response normalisation and the columns are gone today; ReLU stayed.

This folder. `model` has the network of figure 2 as it is, with both columns, and a small one for pictures of
16 × 16. `task` has those pictures and how they are learnt; later papers use it too. `experiment` asks
what dropout gains on few pictures and whether ReLU is quicker than tanh.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DROPOUT, RELU, SIZES, experiment
from .model import AlexNet, ResponseNorm, SmallNet, response_norm


@hookimpl
def implementation() -> type[nn.Module]:
    return AlexNet
