"""OverFeat: a convolutional network that slides over an image, classifies objects and locates them.

Sermanet, Eigen, Zhang, Mathieu, Fergus and LeCun 2013, "OverFeat: Integrated Recognition, Localization and
Detection using Convolutional Networks", arXiv 1312.6229.

The problem. An image classifier takes a window of a fixed size. The object may be elsewhere or have another
size, and a class label does not locate it. Classifying every window of every size takes thousands of passes.

The idea. Convolutions work on images of any size. On a larger image, the same network gives a map of class
scores, one for each window, and overlapping windows share most of the computation. The last pooling is
applied at each of its offsets, which makes the map finer. A second head predicts the object's box from the
same features. Boxes of many windows and scales are merged instead of suppressed. OverFeat won the
localisation task of the 2013 ImageNet challenge.

This folder. `model` has both of the paper's networks, a small network, and the merging of boxes. `task`
generates pictures, cuts windows and localises objects. `experiment` compares localisation from one view, from
all windows of one scale, and from all windows of three scales. `benchmark` compares the time of one pass over
the image with that of separate windows.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import EVERY_WINDOW, LOCATES, SHARED, SIZES, experiment
from .model import ACCURATE, FAST, OverFeat, accumulate, at_each_offset


@hookimpl
def implementation() -> type[nn.Module]:
    return OverFeat
