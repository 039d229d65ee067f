"""AdamW: shrink the weights apart from the gradient step, where Adam cannot rescale the shrinking.

Loshchilov and Hutter 2017, "Decoupled Weight Decay Regularization", arXiv 1711.05101.

The problem. Weight decay, w ← (1 − λ) w at every step, and an L2 penalty, λ/2 ‖w‖² added to the loss, were
taken for the same thing, and libraries offered the second under the first's name. For SGD they are the same,
up to a factor lr. Adam divides the penalty's gradient, like all gradients, by its root mean square: weights
with large gradients are decayed least.

The idea. Leave the penalty out of the loss and shrink the weights beside the step. All are then decayed at
one rate, and the best decay depends less on the learning rate. Most Transformers have been trained so.

The result. Both identities hold, and Adam decays unevenly. On the small network here the best decay does not
move less with the learning rate than the best penalty does, and AdamW is not clearly better.

This folder. model.py: algorithms 1 and 2 on one vector of all weights, line by line, as fast or slow as Adam
there. experiment.py measures both identities, how unevenly Adam decays, and the grid of learning
rates and decays that figure 2 shows.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import EVENLY, GENERALISES, IDENTITY, NO_PENALTY, SEPARABLE, experiment
from .model import SGDW, AdamW


@hookimpl
def implementation() -> type[AdamW]:
    return AdamW
