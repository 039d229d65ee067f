"""The recurrent temporal restricted Boltzmann machine: what is handed on is what was expected, not a sample.

Sutskever, Hinton and Taylor 2008, "The Recurrent Temporal Restricted Boltzmann Machine", NIPS 21.

The problem. A temporal RBM is one RBM for each frame of a film, whose hidden units get a bias from the hidden
units of the frame before. What these were, given all frames, is hopeless to infer; so one guesses from the
past alone, and no gradient tells a unit to keep something for a frame that is still to come.

The idea. Hand on the *expected* hidden units of the frame before, a deterministic function of the past, in
the place of a sample. Given the past, each frame is then an RBM like any other, inference is exact, and the
gradient of what the hidden units become flows back through time as in a recurrent network.

This folder. `model`: the energies, contrastive divergence for all frames at once (their biases are known
before), and the gradient: that of contrastive divergence with what back-propagation through time adds; and
the exact likelihood of small frames, by enumeration. `experiment` has pictures of eight bits that come back
after a blank frame: only who has learned to keep them can know them. And it goes on with films of a bouncing
ball, which two frames tell and one does not. `benchmark` has mean fields of all frames of a film.

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
