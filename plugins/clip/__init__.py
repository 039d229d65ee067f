"""CLIP: learn image representations by predicting which caption belongs to which image.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", arXiv
2103.00020.

The problem. An image classifier predicts only the labels that it was trained with. Another task needs another
set of labelled images and another output layer.

The idea. Captions carry far more information than labels, and there are hundreds of millions of them.
Predicting their words is hard and mostly unnecessary. CLIP solves an easier task: it predicts which images
and captions in a batch belong together. An image tower and a text tower map to a shared space. Matching pairs
are trained to be close, and all other pairs to be far apart. A classifier is then a list of sentences, and an
image is assigned to the closest sentence, without labelled images for the task. Several image generators use
the text tower as their text encoder.

This folder. `model` has the text tower, the Vision Transformer's tower and CLIP. `resnet` has the residual
network's tower with its attention pool. `loss` has the contrastive loss, and a version that never stores the
whole matrix. `weights` renames the released parameters. `task` generates captions for scenes, and `small` has
the experiment's networks. `experiment` counts the images that contrastive learning and word prediction need
to reach the same zero-shot accuracy. It also retrieves scenes for your own texts:

    readtrack run clip --set text="a red three; something green"

Dimensions: batch, tokens, width (of a tower), dim (of the shared space), images, texts.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import EFFICIENT, SIZES, experiment
from .loss import contrastive, two_cross_entropies
from .model import CLIP, TextTower, VisionTower, classifier
from .resnet import AttentionPool, ResNetTower
from .weights import from_released, resnet_from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return CLIP
