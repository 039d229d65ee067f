"""RMSNorm: layer normalisation without the centring.

Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", arXiv 1910.07467.

The problem. Layer normalisation steadies training, and takes two statistics of every vector to do it. In a
small or recurrent network that overhead eats up what the fewer steps have saved.

The idea. Of the two things that layer normalisation does, centring and scaling, only the scaling matters.
Divide by the root of the mean square and leave the mean where it is: one statistic and no bias.

This folder. `model`: equation 4 as it is written and with one gradient; `share` below 1 is the paper's
pRMSNorm. `experiment` calculates table 1's row, and trains layer normalisation's recurrent network with
RMSNorm, with layer normalisation, with centring alone and with neither. `benchmark` puts RMSNorm in layer
normalisation's place, alone and in that network.

Dimensions: batch (any leading axes), features (n in the paper).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import INVARIANCE, QUALITY, TIME, experiment
from .model import RMSNorm, line_by_line, rms_norm


@hookimpl
def implementation() -> type[nn.Module]:
    return RMSNorm
