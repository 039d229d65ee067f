"""The recurrent temporal restricted Boltzmann machine: pass on expected hidden units, not samples.

Sutskever, Hinton and Taylor 2008, "The Recurrent Temporal Restricted Boltzmann Machine", NIPS 21.

The problem. A temporal RBM is a sequence of RBMs, one per frame, whose hidden biases depend on the previous
frame's hidden units. Inferring these from all frames is intractable. So they are sampled from the past alone,
and no gradient tells a unit to remember something for a later frame.

The idea. Pass on the *expected* hidden units of the previous frame, a deterministic function of the past,
instead of a sample. Given the past, each frame is then an ordinary RBM, inference is exact, and the gradient
flows back through the hidden units over time, as in a recurrent network.

This folder. `model`: the energies; contrastive divergence for all frames at once, as their biases are known
beforehand; its gradient, to which backpropagation through time contributes; and the exact likelihood of small
frames, by enumeration. `experiment` has pictures of eight bits that reappear after a blank frame, so that
only a model that remembers can predict them. It also continues films of a bouncing ball, where the motion
takes two frames to see. `benchmark` times mean-field updates of all frames of a film.

Dimensions: batch, time (frames), visible, hidden.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import KEEPS, experiment, films
from .model import RTRBM, sample


@hookimpl
def implementation() -> type[nn.Module]:
    return RTRBM
