"""Faster R-CNN: propose regions with a small network on the detector's own feature maps.

Ren, He, Girshick and Sun 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", arXiv 1506.01497.

The problem. Fast R-CNN takes a fraction of a second per image. Selective search, which proposes its regions,
takes two seconds on a CPU and is not learned.

The idea. The detector's feature maps already show where objects are. A region proposal network (RPN) slides a
3 × 3 window over them. At each position it predicts, for several boxes of fixed shapes (anchors), whether the
box holds an object, and how to move the box onto that object. The convolutions are shared, so proposals cost
almost no time. The proposals' ranking is learned, so few proposals suffice.

This folder. `model` has anchors, the RPN, its targets and loss, and the detector. Box codes and suppression
come from R-CNN, the rest from Fast R-CNN. `experiment` compares three regions from the RPN with three from
grouping pixels. The measures are the recall of objects and the detector's average precision.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import DETECTS, RECALLS, SIZES, experiment
from .model import RPN, FasterRCNN, anchors_at, anchors_over, match, propose, rpn_loss, sample


@hookimpl
def implementation() -> type[nn.Module]:
    return FasterRCNN
