"""ViT: an image is cut into patches, which a plain Transformer reads as if they were words.

Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, Uszkoreit
and Houlsby 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
arXiv 2010.11929.

The problem. Convolutional networks are built for images: near pixels belong together, and what is moved is
the same. Transformers, which had taken over language, know nothing of that, and to let every pixel look at
every other is too dear.

The idea. Cut the image into patches of 16 × 16, turn each into a vector by one matrix, add a learned vector
for its place, and hand them to the Transformer's encoder with one token more, from which the class is read.
Nothing else knows of two dimensions: with enough images this is learnt, and then it is better than built in.

This folder. `model`: the classifier, three kinds of positions, and where its attention goes. `weights` gives
released weights our names. `experiment` trains it beside convolutions of equal cost, on few images and on
many, takes its positions away, and draws what it looks at.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import FEW, MANY, POSITIONS, SIZE, ConvNet, experiment
from .model import (
    HUGE,
    LARGE,
    Block,
    Positions,
    Positions2D,
    ViT,
    attention_distance,
    patches,
    rollout,
)
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return ViT
