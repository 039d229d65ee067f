"""R-CNN: regions that may hold an object, warped and named by a convolutional network.

Girshick, Donahue, Darrell and Malik 2013, "Rich feature hierarchies for accurate object detection and
semantic segmentation", arXiv 1311.2524.

The problem. AlexNet names a picture; a detector must say where things are, too. A window slid over the image
has few places to stand when the network's last maps are coarse, and there are few images with boxes to learn
from. Detection had stopped improving on histograms of gradients.

The idea. Something cheap proposes some two thousand regions that may hold an object, of any class. Each is
warped to the network's square, whatever its shape; the network, trained on a million whole pictures and then
a little longer on such regions, makes features of it, and a linear SVM for each class names them. A
regression moves the boxes, and of those that overlap the best stays.

This folder. `boxes` codes boxes and suppresses all but the best; `model` warps regions and has a small
network, histograms of gradients, SVMs and ridge regression; `task` has scenes and proposals. The later
papers of this line use them as they are. `experiment` compares the features with histograms of gradients and
with those before fine-tuning. On these digits, which are little but strokes, the histograms win.
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
