"""Faster R-CNN: propose regions with a small network that shares the detector's feature maps.

Ren, He, Girshick and Sun 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", arXiv 1506.01497.

The problem. Fast R-CNN processes an image in a fraction of a second. Selective search, which proposes the
regions, takes two seconds per image on a CPU and is not learned.

The idea. The detector's feature maps already show where objects are. A region proposal network (RPN) slides a
3 × 3 window over them. At each position there are several reference boxes of fixed shapes (anchors). For each
anchor, the RPN predicts whether it contains an object, and how to move and scale it to fit that object. The
convolutions are shared, so proposals cost almost no extra time. The ranking of proposals is learned, so few
of them suffice.

This folder. `model` has the anchors, the RPN, its targets and loss, and the detector. Box encoding and
non-maximum suppression come from the R-CNN plugin, the rest from the Fast R-CNN plugin. `experiment` compares
the RPN's three best regions with the three best from grouping pixels, by object recall and by the detector's
mean average precision. `ranking` is a rival without a network: logistic regression on the grouped regions.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DETECTS, RECALLS, SIZES, experiment
from .model import RPN, FasterRCNN, anchors_at, anchors_over, match, propose, rpn_loss, sample


@hookimpl
def implementation() -> type[nn.Module]:
    return FasterRCNN
