"""Fast R-CNN: the convolutions run once for an image, and every region is pooled from their maps.

Girshick 2015, "Fast R-CNN", arXiv 1504.08083.

The problem. R-CNN takes each of two thousand regions through all layers, although they overlap, and trains in
three stages: the network, the SVMs, the regression of boxes. An image takes most of a minute.

The idea. Take the whole image through the convolutions, once. A region is a window of the last maps; RoI
pooling divides it into a fixed grid of cells and keeps the largest value of each, so that the dense layers
get the same number of inputs whatever the region's size. The gradient goes back through the maximum, so
names, boxes and convolutions learn together, with one loss.

This folder. `model` has RoI pooling, the detector, its loss, and dense layers by SVD. `experiment` sets it
beside R-CNN on that paper's scenes and asks what the convolutions gain by learning; `benchmark` times both.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import FASTER, benchmark
from .experiment import SHARED, SVD, THROUGH, experiment
from .model import FastRCNN, detection_loss, roi_pool, smooth_l1, truncated


@hookimpl
def implementation() -> type[nn.Module]:
    return FastRCNN
