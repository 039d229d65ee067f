"""Implements section 3: blocks with shortcuts, and the networks for ImageNet and CIFAR-10.

Dimensions: batch, inputs and outputs (features of an image), height, width.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..batchnorm import BatchNorm

Images = Float[Tensor, "batch inputs height width"]
Maps = Float[Tensor, "batch outputs down across"]
Shortcut = Literal["A", "B", "none"]


class Convolution(nn.Module):
    """A convolution without a bias, followed by batch normalisation (section 3.4)."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        if (
            not self.convolution.weight.is_meta
        ):  # for a meta tensor, torch would import its compiler, which takes a second
            nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out", nonlinearity="relu")
        self.normalization = BatchNorm(outputs)

    def forward(self, x: Images) -> Maps:
        return self.normalization(self.convolution(x))


class Block(nn.Module):
    """Equations 1 and 2: a shortcut, and F with two 3 × 3 convolutions or a bottleneck (figure 5).

    shortcut  "A" takes every `stride`-th position and fills new features with zeros, "B" projects with a
              1 × 1 convolution. If F keeps the shape, A and B are both the identity. "none" gives the plain
              network
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        bottleneck: bool = False,
        shortcut: Shortcut = "B",
    ) -> None:
        super().__init__()
        narrow = outputs // 4
        shapes = (
            ((inputs, narrow, 1), (narrow, narrow, 3), (narrow, outputs, 1))
            if bottleneck
            else ((inputs, outputs, 3), (outputs, outputs, 3))
        )
        self.layers = nn.Sequential(
            *(Convolution(*shape, stride=1 if i else stride) for i, shape in enumerate(shapes))
        )
        self.shortcut, self.stride, self.new = shortcut, stride, outputs - inputs
        changes = stride != 1 or inputs != outputs
        self.projection = (
            Convolution(inputs, outputs, 1, stride=stride) if shortcut == "B" and changes else None
        )

    def residual(self, x: Images) -> Maps:
        """F(x)."""
        *first, last = self.layers
        for layer in first:
            x = layer(x).relu()
        return last(x)

    def carried(self, x: Images) -> Maps:
        """The output of the shortcut."""
        if self.projection is not None:
            return self.projection(x)
        if self.stride == 1 and self.new == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))

    def forward(self, x: Images) -> Maps:
        if self.shortcut == "none":
            return self.residual(x).relu()  # the plain network: relu(F(x))
        return (self.residual(x) + self.carried(x)).relu()


class ResNet(nn.Module):
    """A stem, stages of blocks, global average pooling, and a linear classifier.

    widths   features of each stage (four times as many after a bottleneck); every stage except the first
             halves the image
    blocks   number of blocks in each stage
    stem     size of the first convolution: 7 halves the image, which is then pooled to a quarter (table 1); 3
             keeps the image's size (section 4.2)
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        *,
        stem: Literal[3, 7],
        channels: int = 3,
        classes: int = 1000,
        bottleneck: bool = False,
        shortcut: Shortcut = "B",
    ) -> None:
        super().__init__()
        self.stem = Convolution(channels, widths[0], stem, stride=2 if stem == 7 else 1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if stem == 7 else nn.Identity()
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for place, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            outputs, stage = width * 4 if bottleneck else width, nn.Sequential()
            for i in range(count):
                stride = 2 if place and not i else 1
                stage.append(Block(inputs, outputs, stride=stride, bottleneck=bottleneck, shortcut=shortcut))
                inputs = outputs
            self.stages.append(stage)
        self.classifier = nn.Linear(inputs, classes)

    def features(self, images: Images) -> Maps:
        """The feature maps of the last stage."""
        x = self.pool(self.stem(images).relu())
        for stage in self.stages:
            x = stage(x)
        return x

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Scores of the classes, before the softmax."""
        return self.classifier(self.features(images).mean((2, 3)))


STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def imagenet(layers: int, *, shortcut: Shortcut = "B") -> ResNet:
    """Table 1's network of 18, 34, 50, 101 or 152 layers. Raises ValueError for another number."""
    if layers not in STAGES:
        raise ValueError(
            f"table 1 has no network of {layers} layers: try one of {', '.join(map(str, STAGES))}"
        )
    return ResNet((64, 128, 256, 512), STAGES[layers], stem=7, bottleneck=layers >= 50, shortcut=shortcut)


def cifar(layers: int, *, shortcut: Shortcut = "A", channels: int = 3, classes: int = 10) -> ResNet:
    """Section 4.2's network of 6n + 2 layers. Its shortcuts have no parameters.

    Raises ValueError for another number of layers.
    """
    if layers < 8 or layers % 6 != 2:
        raise ValueError(f"{layers} layers are not 6n + 2: try 20, 32, 44, 56 or 110")
    blocks = [layers // 6] * 3
    return ResNet((16, 32, 64), blocks, stem=3, channels=channels, classes=classes, shortcut=shortcut)


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def multiply_adds(network: ResNet, height: int, width: int) -> int:
    """Multiply-adds of the convolutions and the classifier, for one image."""

    def halved() -> tuple[int, int]:
        return (height + 1) // 2, (width + 1) // 2

    if network.stem.convolution.stride == (2, 2):
        height, width = halved()
    count = network.stem.convolution.weight.numel() * height * width
    if isinstance(network.pool, nn.MaxPool2d):
        height, width = halved()
    for stage in network.stages:
        for block in stage:
            if block.stride == 2:
                height, width = halved()
            # The first layer of a block has the stride, so all its layers work on the smaller image.
            count += filters(block) * height * width
    return count + network.classifier.weight.numel()


def filters(block: Block) -> int:
    """Number of weights in a block's convolutions, which equals the multiply-adds at each output position."""
    return sum(weight.numel() for weight in block.parameters() if weight.ndim == 4)
