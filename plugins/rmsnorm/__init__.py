"""RMSNorm: layer normalisation without centring.

Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", arXiv 1910.07467.

The problem. Layer normalisation stabilises training, but computes two statistics of every vector. In a small
or recurrent network, this overhead cancels the time saved by fewer training steps.

The idea. Layer normalisation centres and scales its input, but only scaling matters. RMSNorm divides by the
root mean square and does not subtract the mean. It needs a single statistic and no bias.

This folder. `model` implements equation 4 as written, and with one fused gradient. A `share` below 1 gives
the paper's pRMSNorm. `experiment` reproduces a row of table 1, and trains a recurrent network with RMSNorm,
layer normalisation, centring alone, and no normalisation. `benchmark` compares the speed of RMSNorm and layer
normalisation, alone and in this network.

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
