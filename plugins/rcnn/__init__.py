"""R-CNN: region proposals, warped to a square and classified by a convolutional network.

Girshick, Donahue, Darrell and Malik 2013, "Rich feature hierarchies for accurate object detection and
semantic segmentation", arXiv 1311.2524.

The problem. AlexNet classifies an image, but a detector must also locate the objects. A sliding window is too
coarse, because the network's last feature maps have a large stride. Few images with annotated boxes are
available for training. Detection with histograms of gradients had stopped improving.

The idea. A cheap method proposes about two thousand regions that may hold an object of any class. Each region
is warped to the network's input square, whatever its shape. The network is trained on a million whole images
and then fine-tuned on such regions. It computes features of the region, and a linear SVM for each class
scores them. A regression adjusts the boxes. Among overlapping boxes, only the highest-scoring one is kept.

This folder. `boxes` has box encoding and non-maximum suppression. `model` warps regions, and has a small
network, histograms of gradients, SVMs and ridge regression. `task` has scenes and proposals. The plugins of
R-CNN's successors import these modules unchanged. `experiment` compares the network's features with
histograms of gradients and with its features before fine-tuning. Digits consist of strokes, and histograms of
gradients describe these scenes better than the network's features do. `benchmark` times non-maximum
suppression, and the network on warped regions.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .boxes import clip, decode, encode, nms
from .experiment import FEATURES, FINE_TUNED, SIZES, experiment
from .model import RegionNet, hog, linear_svms, ridge, warp


@hookimpl
def implementation() -> type[nn.Module]:
    return RegionNet
