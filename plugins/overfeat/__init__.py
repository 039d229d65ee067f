"""OverFeat: a network that slides over an image, names what is there and says where.

Sermanet, Eigen, Zhang, Mathieu, Fergus and LeCun 2013, "OverFeat: Integrated Recognition, Localization and
Detection using Convolutional Networks", arXiv 1312.6229.

The problem. A network that names photographs sees a window of one size. An object may be elsewhere, larger
or smaller; and its name does not say where it is. To try every window of every size is thousands of passes.

The idea. Convolutions do not mind the image's size: over a larger one the same network gives a map of
answers, one for each window, and windows share nearly all of the work. The last pooling starts at each of
its offsets, for a finer map. A second head predicts the object's box from the same features; boxes of many
windows and scales are accumulated, not suppressed, so that those that agree win. It located best in the
ImageNet competition of 2013, and FCN and detectors without proposals go on from here.

This folder. `model` has both of the paper's networks, a small one, and the accumulation. `task` has pictures,
windows and localisation. `experiment` locates from one view, all windows of one scale, and of three.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import EVERY_WINDOW, LOCATES, SHARED, SIZES, experiment
from .model import ACCURATE, FAST, OverFeat, accumulate, at_each_offset


@hookimpl
def implementation() -> type[nn.Module]:
    return OverFeat
