"""Group normalisation: normalise over groups of channels of one example.

Wu and He 2018, "Group Normalization", arXiv 1803.08494.

The problem. Batch normalisation needs a batch. With large images, a device's memory holds only one or two
examples, and statistics over two examples are noisy. Layer and instance normalisation need no batch, but are
less accurate in convolutional networks for recognition. Layer normalisation assumes that all channels have
similar statistics. Instance normalisation makes no use of similarities between channels.

The idea. Divide the channels into groups, and compute the statistics over one group and all positions of one
example. With one group the result is layer normalisation (over channels and positions). With one channel per
group it is instance normalisation. Neither training nor inference depends on the batch.

This folder. `model` implements equation 7 as written and with layer normalisation's hand-written gradient. It
also has batch normalisation over parts of the batch, as on several devices. `experiment` extends layer
normalisation's table of invariances, and trains the deep convolutional network of the plugin for batch
normalisation.

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
