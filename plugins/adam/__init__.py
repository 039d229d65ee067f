"""Adam: gradient descent with momentum and a step size per coordinate, both corrected for bias.

Kingma and Ba 2014, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.

The problem. Momentum averages out the gradient's noise, and RMSProp adapts the step to each coordinate's
scale. The two were already used together. But the running mean of squared gradients starts at zero. If it has
a long memory, it is too small at first, which makes the first steps far too large.

The idea. Keep running means of the gradient and of its square, and divide each by 1 − βᵗ, the sum of the
weights that the mean assigns to the gradients so far. Both means are then unbiased from the first step on. A
step is at most about `lr` in each coordinate, whatever the gradient's scale, so one setting fits many
problems. The paper's defaults were used throughout the field for years.

The result. On a network with dropout, Adam reaches a lower training loss than SGD, heavy-ball momentum and
Nesterov momentum, and about the same loss as RMSProp. Bias correction does not help when Adam is tuned
with and without it on the same grid. (The convergence proof has a gap, which AMSGrad closes: Reddi and
others 2018, arXiv 1904.09237.)

This folder. model.py implements algorithm 1 on one vector of all weights, line by line. The implementation
makes about ten passes over memory, whereas torch's fused kernel makes one. It is as fast as the kernel on
many small tensors and much slower on large tensors. `torch.compile` speeds up large tensors, but does not
reach the kernel's speed when the step number varies. experiment.py trains the same networks on the same
batches with Adam and its predecessors, each tuned on the same grid of learning rates, under dropout (figure
2) and with sparse gradients (figure 1). It also repeats figure 4, a long memory without bias correction.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DROPOUT, EQUALLY_TUNED, FIRST_STEPS, SPARSE, experiment
from .model import Adam


@hookimpl
def implementation() -> type[Adam]:
    return Adam
