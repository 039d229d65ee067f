"""The all convolutional net, and guided backpropagation, which looks into it.

Springenberg, Dosovitskiy, Brox and Riedmiller 2014, "Striving for Simplicity: The All Convolutional Net",
arXiv 1412.6806.

The problem. Networks alternate convolution and max-pooling because they always did. What is pooling for, if a
convolution with a stride shrinks as well? And a deconvnet needs pooling's switches to look inside: what does
one do without them?

The idea. Replace each pooling by a convolution with stride 2, and the hidden layers by 1 × 1 convolutions:
only convolutions are left, and small images are named as well as before. To see what excites a unit, go back
as the gradient does and, at each ReLU, as a deconvnet does too: let through what was positive on the way
forward and is positive on the way back. The maps are sharp with pooling and without.

This folder. `model` has the networks of table 2 and the rule. The network that is asked is that of the
saliency maps' paper, the way back the deconvnet's. `experiment` asks where the maps lie; the errors of table
2 are not repeated here.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SHARPER, SIZES, experiment
from .model import AllConvNet, guided


@hookimpl
def implementation() -> type[nn.Module]:
    return AllConvNet
