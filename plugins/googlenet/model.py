"""Implements the Inception block, table 1's network with both auxiliary heads, and a small network.

Dimensions: batch, maps (channels), rows, columns, classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..alexnet import ResponseNorm

Images = Float[Tensor, "batch 3 height width"]
Maps = Float[Tensor, "batch maps rows columns"]


class Widths(NamedTuple):
    """Output channels of a block's layers: the columns of table 1."""

    one: int  # of the 1 × 1 branch
    reduce3: int  # of the 1 × 1 layer before the 3 × 3 layer; 0 in the naive block, which has none
    three: int
    reduce5: int
    five: int
    pool: int  # of the 1 × 1 layer after pooling; 0 in the naive block, which has none

    def outputs(self, inputs: int) -> int:
        return self.one + self.three + self.five + (self.pool or inputs)


TABLE_1 = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Figure 2: filters of three sizes and pooling in parallel, with concatenated outputs.

    With reductions (figure 2b), the three 1 × 1 layers that read the input are one convolution, `entry`,
    which reads the input once. Without reductions (figure 2a, naive), every branch reads the input.
    """

    def __init__(self, inputs: int, widths: Widths) -> None:
        super().__init__()
        self.widths, self.outputs = widths, widths.outputs(inputs)
        self.entry = nn.Conv2d(inputs, widths.one + widths.reduce3 + widths.reduce5, 1)
        self.three = nn.Conv2d(widths.reduce3 or inputs, widths.three, 3, padding=1)
        self.five = nn.Conv2d(widths.reduce5 or inputs, widths.five, 5, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.project = nn.Conv2d(inputs, widths.pool, 1) if widths.pool else None

    def forward(self, x: Maps) -> Float[Tensor, "batch outputs rows columns"]:
        widths = self.widths
        one, *reduced = self.entry(x).relu().split((widths.one, widths.reduce3, widths.reduce5), 1)
        three, five = (
            layer(small if small.shape[1] else x).relu()
            for layer, small in zip((self.three, self.five), reduced, strict=True)
        )
        pooled = self.pool(x)
        return torch.cat((one, three, five, self.project(pooled).relu() if self.project else pooled), 1)


class Auxiliary(nn.Module):
    """Section 5: an auxiliary classifier on a middle layer, used in training only."""

    def __init__(self, inputs: int, *, classes: int, hidden: int = 1024, side: int = 4) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.project = nn.Conv2d(inputs, 128, 1)
        self.hidden = nn.Linear(128 * side**2, hidden)
        self.dropout = nn.Dropout(0.7)
        self.scores = nn.Linear(hidden, classes)

    def forward(self, x: Maps) -> Float[Tensor, "batch classes"]:
        x = self.project(self.pool(x)).relu().flatten(1)
        return self.scores(self.dropout(self.hidden(x).relu()))


class GoogLeNet(nn.Module):
    """Table 1: from images of 224 × 224 to logits.

    In training, the network also returns the logits of the two auxiliary heads, after its own logits.
    """

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.reduce = nn.Conv2d(64, 64, 1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        self.norm = ResponseNorm()
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.blocks, maps, self.heads = nn.ModuleDict(), 192, nn.ModuleDict()
        for name, widths in TABLE_1.items():
            self.blocks[name] = Inception(maps, widths)
            maps = self.blocks[name].outputs
            if name in ("4a", "4d"):
                self.heads[name] = Auxiliary(maps, classes=classes)
        self.dropout = nn.Dropout(0.4)
        self.scores = nn.Linear(maps, classes)
        init_weights(self)

    def forward(
        self, images: Images
    ) -> Float[Tensor, "batch classes"] | tuple[Float[Tensor, "batch classes"], ...]:
        x = self.norm(self.pool(self.conv1(images).relu()))
        x = self.pool(self.norm(self.conv2(self.reduce(x).relu()).relu()))
        middle = []
        for name, block in self.blocks.items():
            if name in ("4a", "5a"):
                x = self.pool(x)
            x = block(x)
            if self.training and name in self.heads:
                middle.append(self.heads[name](x))
        scores = self.scores(self.dropout(x.mean((2, 3))))
        return (scores, *middle) if self.training else scores


def loss(
    scores: tuple[Float[Tensor, "batch classes"], ...], labels: Tensor, *, weight: float = 0.3
) -> Float[Tensor, ""]:
    """Section 5: the network's cross-entropy plus `weight` times the cross-entropy of each auxiliary head."""
    last, *middle = (F.cross_entropy(each, labels) for each in scores)
    return last + weight * sum(middle)


def init_weights(network: nn.Module) -> None:
    """Initialises weights with variance 2 / fan-in. The paper does not state its initialisation."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class Plain(nn.Module):
    """3 × 3 layers in place of a block, each followed by a ReLU.

    norm  whether batch normalisation precedes each ReLU
    """

    def __init__(self, inputs: int, outputs: int, *, layers: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.layers, self.outputs = nn.Sequential(), outputs
        for maps in (inputs, *[outputs] * (layers - 1)):
            self.layers.append(nn.Conv2d(maps, outputs, 3, padding=1))
            self.layers.extend((nn.BatchNorm2d(outputs), nn.ReLU()) if norm else (nn.ReLU(),))

    def forward(self, x: Maps) -> Float[Tensor, "batch outputs rows columns"]:
        return self.layers(x)


class SmallNet(nn.Module):
    """A network for images of 16 × 16: a convolution, blocks on 8 × 8 and on 4 × 4, global average pooling.

    block  makes a block from the number of input channels; the block's `outputs` is the number of output
           channels
    """

    def __init__(self, block: Callable[[int], "Inception | Plain"], *, classes: int, stem: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.blocks, maps = nn.ModuleList(), stem
        for _ in range(2):
            self.blocks.append(block(maps))
            maps = self.blocks[-1].outputs
        self.pool = nn.MaxPool2d(2)
        self.scores = nn.Linear(maps, classes)
        init_weights(self)

    def forward(self, images: Float[Tensor, "batch 3 16 16"]) -> Float[Tensor, "batch classes"]:
        first, second = self.blocks
        x = self.pool(first(self.pool(self.stem(images).relu())))
        return self.scores(second(x).mean((2, 3)))


def multiply_adds(network: SmallNet) -> int:
    """Multiply-adds of the convolutions and the classifier for one image."""

    def weights(module: nn.Module) -> int:
        return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear))

    parts = zip((network.stem, *network.blocks, network.scores), (16, 8, 4, 1), strict=True)
    return sum(weights(module) * side**2 for module, side in parts)
