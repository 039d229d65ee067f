"""Implements the residual network's image tower with section 2.4's changes.

Dimensions: batch, inputs and outputs (features of an image), height, across, dim.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attention import merge_heads, scaled_dot_product_attention, split_heads
from ..resnet import Convolution
from .model import Embeddings, Images, embedding, init_normal

Maps = Float[Tensor, "batch inputs height across"]


class AttentionPool(nn.Module):
    """Section 2.4: attention whose query is the average over all positions, in place of average pooling.

    side  side of the square maps; each position, and the average, has a learned embedding
    dim   size of the result
    """

    def __init__(self, side: int, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = embedding(side**2 + 1, width, width**-0.5)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, dim)
        for layer in (self.query, self.key, self.value, self.output):
            init_normal(layer.weight, width**-0.5)

    def forward(self, maps: Float[Tensor, "batch width side side"]) -> Embeddings:
        x = maps.flatten(2).mT
        x = torch.cat((x.mean(1, keepdim=True), x), 1) + self.positions.weight
        projected = self.query(x[:, :1]), self.key(x), self.value(x)
        q, k, v = (split_heads(vectors, self.heads) for vectors in projected)
        return self.output(merge_heads(scaled_dot_product_attention(q, k, v))).squeeze(1)


class Bottleneck(nn.Module):
    """The residual network's bottleneck with average pooling in place of strides, which skip positions."""

    def __init__(self, inputs: int, narrow: int, *, stride: int = 1) -> None:
        super().__init__()
        outputs = 4 * narrow
        shapes = ((inputs, narrow, 1), (narrow, narrow, 3), (narrow, outputs, 1))
        self.layers = nn.ModuleList(Convolution(*shape) for shape in shapes)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        changes = stride > 1 or inputs != outputs
        self.projection = Convolution(inputs, outputs, 1) if changes else nn.Identity()
        last = self.layers[2].normalization.weight
        if not last.is_meta:
            nn.init.zeros_(last)  # the block starts as the identity or its projection

    def forward(self, x: Maps) -> Float[Tensor, "batch outputs down right"]:
        first, second, third = self.layers
        added = third(self.pool(second(first(x).relu()).relu()))
        return (added + self.projection(self.pool(x))).relu()


class ResNetTower(nn.Module):
    """A stem of three convolutions, four stages of bottlenecks, and the attention pool, with RN50's defaults.

    size    side of the square images, a multiple of 32 (else ValueError)
    blocks  number of blocks in each stage
    width   channels of the first stage's narrow layers
    heads   heads of the attention pool; width / 2 heads have size 64, as in the paper
    """

    def __init__(
        self,
        *,
        size: int = 224,
        blocks: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        heads: int = 32,
        dim: int = 1024,
    ) -> None:
        super().__init__()
        if size % 32:
            raise ValueError(f"an image of {size} pixels cannot be halved five times")
        self.stem = nn.Sequential(
            Convolution(3, width // 2, 3, stride=2),
            nn.ReLU(),
            Convolution(width // 2, width // 2, 3),
            nn.ReLU(),
            Convolution(width // 2, width, 3),
            nn.ReLU(),
            nn.AvgPool2d(2),
        )
        self.stages, inputs = nn.ModuleList(), width
        for place, count in enumerate(blocks):
            stage, narrow = nn.Sequential(), width * 2**place
            for i in range(count):
                stage.append(Bottleneck(inputs, narrow, stride=2 if place and not i else 1))
                inputs = 4 * narrow
            self.stages.append(stage)
        self.pool = AttentionPool(size // 32, inputs, heads, dim)

    def forward(self, images: Images) -> Embeddings:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.pool(x)
