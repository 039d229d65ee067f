"""AdamW: Adam with weight decay decoupled from the gradient step.

Loshchilov and Hutter 2017, "Decoupled Weight Decay Regularization", arXiv 1711.05101.

The problem. Weight decay, w ← (1 − λ) w at every step, and an L2 penalty, λ/2 ‖w‖² added to the loss, were
considered equivalent, and libraries implemented the penalty under the name of weight decay. For SGD they are
equivalent up to a factor lr. Adam divides the penalty's gradient, like every gradient, by its root mean
square, so weights with large gradients decay least.

The idea. Leave the penalty out of the loss and shrink the weights by a separate term of the update. All
weights then decay at the same rate, and the best decay depends less on the learning rate. Most Transformers
are trained with AdamW.

The result. The penalty and weight decay are equivalent for SGD and not for Adam, and Adam with a penalty
decays weights unevenly. On this plugin's small network, the best decay depends on the learning rate as much
as the best penalty does, and AdamW is not clearly better.

This folder. `model` implements algorithms 1 and 2 line by line, on one vector of all weights. `experiment`
tests both statements, measures how unevenly Adam decays, and searches the grid of learning rates and decays
of figure 2.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import EVENLY, GENERALISES, IDENTITY, NO_PENALTY, SEPARABLE, experiment
from .model import SGDW, AdamW


@hookimpl
def implementation() -> type[AdamW]:
    return AdamW
