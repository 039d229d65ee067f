"""Fast R-CNN: run the convolutions once per image, and pool every region's features from the shared maps.

Girshick 2015, "Fast R-CNN", arXiv 1504.08083.

The problem. R-CNN runs each of two thousand overlapping regions through all layers, and trains the network,
the SVMs and the box regression in three stages. An image takes most of a minute.

The idea. Run the convolutions once on the whole image. A region is a window of the last feature maps. RoI
pooling divides the window into a fixed grid of cells and takes the maximum in each, so that the dense layers
get inputs of the same size for regions of any size. The gradient flows through the maximum, so classes, boxes
and convolutions are trained together with one loss.

This folder. `model` has RoI pooling, the detector, its loss, and dense layers compressed by SVD. `experiment`
compares the detector with R-CNN on the R-CNN plugin's scenes, and measures the gain from training the
convolutions. `benchmark` times both detectors.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import FASTER, benchmark
from .experiment import SHARED, SVD, THROUGH, experiment
from .model import FastRCNN, detection_loss, roi_pool, smooth_l1, truncated


@hookimpl
def implementation() -> type[nn.Module]:
    return FastRCNN
