"""Faster R-CNN: a small network on the detector's own maps proposes the regions.

Ren, He, Girshick and Sun 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", arXiv 1506.01497.

The problem. With Fast R-CNN the network takes a fraction of a second; what proposes its regions takes two,
on a CPU, and learns nothing.

The idea. The detector's maps already know where something is. A window of 3 × 3 slides over them and says of
each of a few boxes round its place, the anchors, of several sizes and shapes, whether it holds an object, and
how to move it onto that object. The convolutions are shared, so proposals cost next to nothing, and because
they are ranked by what was learnt, few of them are enough.

This folder. `model` has anchors, the proposal network, what its anchors learn, and the detector; boxes, their
codes and suppression are R-CNN's, the rest is Fast R-CNN's. `experiment` compares the proposals with grouped
pixels and puts all three detectors in one table; `benchmark` times an image from pixels to names. On these
clean scenes, after 150 steps, grouped pixels cover more objects than the network's proposals do.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import SOONER, benchmark
from .experiment import DETECTS, RECALLS, SIZES, experiment
from .model import RPN, FasterRCNN, anchors_at, anchors_over, match, propose, rpn_loss, sample


@hookimpl
def implementation() -> type[nn.Module]:
    return FasterRCNN
