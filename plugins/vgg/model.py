"""Implements the networks of table 1, and the small networks of the experiment.

Dimensions: batch, maps (channels), rows, columns, classes.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..alexnet import ResponseNorm

Images = Float[Tensor, "batch 3 height width"]
Maps = Float[Tensor, "batch maps rows columns"]

# Table 1. A number is a 3 × 3 convolution with that number of feature maps. With a dash, it is a 1 × 1
# convolution. L is response normalisation, and M is max-pooling by two.
TABLE_1 = {
    "A": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "A-LRN": "64 L M 128 M 256 256 M 512 512 M 512 512 M",
    "B": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "C": "64 64 M 128 128 M 256 256 256- M 512 512 512- M 512 512 512- M",
    "D": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "E": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


class VGG(nn.Module):
    """Maps images to class scores before the softmax. Weights have torchvision's names.

    configuration  a column of `TABLE_1`, or a text in the same format
    side           height and width of the last feature maps in training (7 for 224 × 224 images)
    """

    def __init__(
        self,
        configuration: str = "D",
        *,
        hidden: int = 4096,
        classes: int = 1000,
        side: int = 7,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.features, maps = nn.Sequential(), 3
        for layer in TABLE_1.get(configuration, configuration).split():
            if layer == "M":
                self.features.append(nn.MaxPool2d(2))
            elif layer == "L":
                self.features.append(ResponseNorm())
            else:
                size, wanted = (1 if layer.endswith("-") else 3), int(layer.rstrip("-"))
                self.features.append(nn.Conv2d(maps, wanted, size, padding=size // 2))
                self.features.append(nn.ReLU())
                maps = wanted
        self.side = side
        self.classifier = nn.Sequential(
            *(nn.Linear(maps * side**2, hidden), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(hidden, classes),
        )
        init_weights(self)

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        return self.classifier(self.features(images).flatten(1))

    def dense(self, images: Images) -> Float[Tensor, "batch classes rows columns"]:
        """Section 3.2: scores at every position of an image of any size, with the head applied as
        convolutions.

        The mean score over positions is the paper's score of the image.
        """
        first, second, last = (layer for layer in self.classifier if isinstance(layer, nn.Linear))
        weights = (first.weight, first.bias, second.weight, second.bias, last.weight, last.bias)
        return dense_head(self.features(images), *weights, side=self.side)


def dense_head(maps: Maps, *layers: Tensor, side: int) -> Float[Tensor, "batch classes _ _"]:
    """Apply three linear layers (weights and biases) to every `side` by `side` window of the feature maps."""
    w1, b1, w2, b2, w3, b3 = layers
    x = F.conv2d(maps, w1.view(len(w1), maps.shape[1], side, side), b1).relu()
    x = F.conv2d(x, w2[:, :, None, None], b2).relu()
    return F.conv2d(x, w3[:, :, None, None], b3)


def init_weights(network: nn.Module) -> None:
    """Initialise weights with variance 2 / fan-in (He et al. 2015), and biases with 0.

    The paper initialises shallow networks with a standard deviation of 0.01. Deep networks take their first
    layers from a trained shallow network. A note in the paper says that Glorot's initialisation avoids this.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class Stages(nn.Module):
    """A small network: stages of convolutions, each stage followed by pooling by two, and a classifier.

    filters  filter size of each convolution in a stage
    widths   number of feature maps in each stage
    between  layer after each convolution of a stage; after the last convolution it is always a ReLU
    norm     whether each convolution is followed by batch normalisation
    """

    def __init__(
        self,
        filters: Sequence[int],
        *,
        widths: Sequence[int] = (16, 32, 48),
        side: int = 16,
        classes: int,
        between: type[nn.Module] = nn.ReLU,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.stages, maps = nn.Sequential(), 3
        for width in widths:
            for place, size in enumerate(filters, 1):
                after = nn.ReLU() if place == len(filters) else between()
                self.stages.append(nn.Conv2d(maps, width, size, padding=size // 2))
                self.stages.extend((nn.BatchNorm2d(width), after) if norm else (after,))
                maps = width
            self.stages.append(nn.MaxPool2d(2))
        self.scores = nn.Linear(maps * (side // 2 ** len(widths)) ** 2, classes)
        init_weights(self)

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        return self.scores(self.stages(images).flatten(1))


def seen(filters: Sequence[int]) -> int:
    """Side of the receptive field of a stack of stride-1 convolutions."""
    return 1 + sum(size - 1 for size in filters)


def weights_of(filters: Sequence[int], maps: int) -> int:
    """Number of weights in convolutions that keep the number of feature maps, without biases."""
    return sum(size**2 * maps**2 for size in filters)


def multiply_adds(network: Stages, side: int = 16) -> int:
    """Multiply-adds of the convolutions and the classifier, for one image of `side` × `side` pixels."""
    total = network.scores.weight.numel()
    for layer in network.stages:
        if isinstance(layer, nn.Conv2d):
            total += layer.weight.numel() * side**2
        elif isinstance(layer, nn.MaxPool2d):
            side //= 2
    return total
