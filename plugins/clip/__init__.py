"""CLIP: learn what images show from the texts beside them, by asking which text belongs to which image.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", arXiv
2103.00020.

The problem. An image classifier knows the labels it was trained with. Another question takes another set of
labelled images, and another layer on top.

The idea. Captions say far more than labels, and are there by the hundred million. To predict their words is
hard, and much of it is of no use. Ask less: of a batch of images and captions, which belong together? Two
towers, one for either, end in one space; matching pairs are to lie close and all others apart. A classifier
then is a list of sentences: the image takes the one that lies closest. No label of the task was ever seen.
The text tower became the ear of image generators.

This folder. `model` has the text tower, the Vision Transformer's tower and the two in one; `resnet` the
residual network's tower with its attention pool; `loss` the contest, also without ever holding its matrix;
`weights` puts released weights into them. `task` writes captions for scenes, `small` has
the experiment's networks, and `experiment` counts the images that two ways to learn from captions take, and
shows the scenes that the reader's own texts find:

    readtrack run clip --set text="a red three; something green"

Dimensions: batch, tokens, width (of a tower), dim (of the space that both towers end in), images, texts.
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
