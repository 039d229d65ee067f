"""Group normalisation: mean and variance over groups of channels of one example.

Wu and He 2018, "Group Normalization", arXiv 1803.08494.

The problem. Batch normalisation needs a batch: large pictures leave memory for one or two of them on a
device, and statistics of two examples are poor. Layer and instance normalisation do without a batch, and in
convolutional networks for recognition they lose to it: one takes all channels for alike, the other none.

The idea. Channels are not independent, and not all alike: divide them into groups and take the statistics
over one group, all positions, one example. One group is layer normalisation (over channels and positions), as
many groups as channels are instance normalisation, and neither training nor use ever sees the batch.

This folder. `model`: equation 7 as it is written, the same through layer normalisation's one gradient, and a
batch normalisation whose statistics see a part of the batch, as on several devices. `experiment` carries on
layer normalisation's table of invariances, and trains batch normalisation's deep convolutions.

Dimensions: batch, features (channels), positions (none, or height and width).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import ALONE, FEW_EXAMPLES, SMALL_BATCHES, experiment
from .model import GhostBatchNorm, GroupNorm, group_norm, line_by_line


@hookimpl
def implementation() -> type[nn.Module]:
    return GroupNorm
