"""ViT: a plain Transformer encoder on image patches.

Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, Uszkoreit
and Houlsby 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", arXiv
2010.11929.

The problem. Convolutional networks have the right inductive biases for images, locality and translation
equivariance. Transformers, which had become dominant for language, lack these biases, and attention between
all pixels is too expensive.

The idea. Cut the image into patches of 16 × 16 pixels, project each patch linearly to a vector, and add a
learned position embedding. A Transformer encoder processes these vectors and an additional class token, from
which the class is predicted. Apart from the patches, nothing in the model reflects the two-dimensional
structure of images. With enough images the model learns this structure and outperforms convolutional
networks.

This folder. `model` has the classifier, three kinds of position embeddings, and attention maps. `weights`
loads released weights. `experiment` trains ViT and a convolutional network of equal cost on few and on many
images, and removes the position embeddings. `looking` visualises attention. `benchmark` times the patch
embedding, an encoder block, and the whole network.
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
