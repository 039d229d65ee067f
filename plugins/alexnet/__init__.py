"""AlexNet: a deep convolutional network that won ImageNet 2012 by a wide margin.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks".

The problem. Convolutional networks could read digits, but nobody had shown that these networks can classify
photographs. Photographs need a large network, which takes weeks to train and overfits.

The idea. AlexNet combines several techniques that make a large network trainable. Its ReLU units do not
saturate. The convolutions are split into two columns on two GPUs, which exchange maps only in the third
layer. Responses are normalised across neighbouring maps, and pooling windows overlap. Training images are
shifted, mirrored and recoloured. Dropout drops half of the hidden units at each step, so no unit can rely on
another. Seven such networks together had a top-5 error of 15.3 %, against 26.2 % for the second-best entry,
which turned computer vision to deep learning. Response normalisation and the columns have since disappeared,
but ReLU has stayed.

This folder. `model` has the network of figure 2 with both columns, and a small network for images of 16 × 16
pixels. `task` has these images and the training loop, which the plugins of later papers use too. `experiment`
tests how much dropout lowers the error on few images, and whether ReLU trains faster than tanh.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DROPOUT, RELU, SIZES, experiment
from .model import AlexNet, ResponseNorm, SmallNet, response_norm


@hookimpl
def implementation() -> type[nn.Module]:
    return AlexNet
