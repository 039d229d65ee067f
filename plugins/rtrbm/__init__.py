"""The recurrent temporal restricted Boltzmann machine: an RBM per frame, linked by expected hidden units.

Sutskever, Hinton and Taylor 2008, "The Recurrent Temporal Restricted Boltzmann Machine", NIPS 21.

The problem. A temporal RBM is a sequence of RBMs, one per frame, whose hidden biases depend on the previous
frame's hidden units. Inferring the hidden units from all frames is intractable, so they are sampled given
only the past. No gradient trains a hidden unit to store information for a later frame.

The idea. Pass on the *expected* hidden units of the previous frame, a deterministic function of the past,
instead of a sample. Given the past, each frame is then an ordinary RBM and inference is exact. The gradient
flows back through the hidden units over time, as in a recurrent network.

This folder. `model` implements the energies and contrastive divergence for all frames at once, which is
possible because their biases are known beforehand. The gradient of contrastive divergence includes
backpropagation through time. For small frames, `model` computes the exact likelihood by enumeration.
`experiment` trains on frames of eight bits that reappear after a blank frame, so only a model with memory can
predict them. It also continues films of a bouncing ball, whose motion can only be inferred from two frames.
`benchmark` times mean-field updates of all frames of a film.

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
