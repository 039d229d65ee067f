"""Implements OverFeat's networks, which slide over images of any size, and the accumulation of boxes.

Dimensions: batch, classes, maps, rows, columns (of views), height, width, n (boxes of an image).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Layer(NamedTuple):
    """A convolution with a ReLU, followed by max-pooling (`pool` is 1 if there is none)."""

    maps: int
    side: int
    stride: int = 1
    padding: int = 0
    pool: int = 1


# Tables 1 and 3: the layers before the classifier, for windows of 231 and 221 pixels.
FAST = (
    Layer(96, 11, stride=4, pool=2),
    Layer(256, 5, pool=2),
    Layer(512, 3, padding=1),
    Layer(1024, 3, padding=1),
    Layer(1024, 3, padding=1, pool=2),
)
ACCURATE = (
    Layer(96, 7, stride=2, pool=3),
    Layer(256, 7, pool=2),
    Layer(512, 3, padding=1),
    Layer(512, 3, padding=1),
    Layer(1024, 3, padding=1),
    Layer(1024, 3, padding=1, pool=3),
)
# For windows of 24 × 24. There is no padding, so a window gives the same result alone and within an
# image.
SMALL = (Layer(16, 5, pool=2), Layer(32, 3), Layer(48, 3, pool=2))


class Views(NamedTuple):
    """Predictions for each window of an image, row by row."""

    scores: Float[Tensor, "batch classes rows columns"]  # before the softmax
    boxes: Float[Tensor, "batch 4 rows columns"]  # x1, y1, x2, y2 in units of the window's side


class OverFeat(nn.Module):
    """Class scores and a box for every window of an image of any size.

    side        side of the feature maps after the last pooling, which the classifier reads: 6 (fast), 5
                (accurate)
    hidden      sizes of the classifier's two hidden layers; `regress` has the sizes for the regressor
    normalised  whether batch normalisation follows each convolution; it is newer than the paper and shortens
                training

    Windows are `stride` pixels apart. The last pooling is applied at each of its offsets (section 3.3). To do
    this, the pooling has stride 1, and the layers after it are dilated by the pooling size.
    """

    def __init__(
        self,
        layers: Sequence[Layer] = ACCURATE,
        *,
        side: int = 5,
        hidden: tuple[int, int] = (4096, 4096),
        regress: tuple[int, int] = (4096, 1024),
        classes: int = 1000,
        dropout: float = 0.5,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.features, maps, self.stride = nn.Sequential(), 3, 1
        for layer in layers:
            convolution = nn.Conv2d(maps, layer.maps, layer.side, layer.stride, layer.padding)
            norm = (nn.BatchNorm2d(layer.maps),) if normalised else ()
            self.features.extend((convolution, *norm, nn.ReLU()))
            maps, self.stride = layer.maps, self.stride * layer.stride
            if layer is not layers[-1] and layer.pool > 1:
                self.features.append(nn.MaxPool2d(layer.pool))
                self.stride *= layer.pool
        self.offsets = nn.MaxPool2d(layers[-1].pool, stride=1)
        self.classifier = head(maps, (*hidden, classes), side, layers[-1].pool, dropout)
        self.regressor = head(maps, (*regress, 4), side, layers[-1].pool, 0.0)
        for layer in self.modules():
            # With the paper's standard deviation of 0.01, a network of this size makes no progress within a
            # thousand steps.
            if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        last = self.regressor[-1]
        if not last.weight.is_meta:
            # The initial box is the middle half of the window.
            nn.init.zeros_(last.weight)
            last.bias.data[:2], last.bias.data[2:] = 0.25, 0.75

    @classmethod
    def small(cls, classes: int) -> "OverFeat":
        """The network for windows of 24 × 24, which are two pixels apart."""
        heads = {"hidden": (96, 64), "regress": (96, 64)}
        return cls(SMALL, side=3, classes=classes, dropout=0.0, normalised=True, **heads)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Views:
        maps = self.offsets(self.features(images))
        return Views(self.classifier(maps), self.regressor(maps))


def head(maps: int, units: Sequence[int], side: int, apart: int, dropout: float) -> nn.Sequential:
    """Dense layers as convolutions over `side` × `side` positions, with dilation `apart`."""
    layers = nn.Sequential(nn.Conv2d(maps, units[0], side, dilation=apart))
    for inputs, outputs in pairwise(units):
        layers.extend((nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(inputs, outputs, 1)))
    return layers


def at_each_offset(network: OverFeat, images: Float[Tensor, "batch 3 height width"]) -> Views:
    """The same network, computed as in figure 3: pool each offset separately, then interleave the results."""
    maps, pool = network.features(images), network.offsets.kernel_size
    rows, columns = (length - pool + 1 for length in maps.shape[2:])
    found = []
    for layers in (network.classifier, network.regressor):
        first, *rest = layers
        span = pool * (first.kernel_size[0] - 1)
        result = maps.new_empty(len(maps), rest[-1].out_channels, rows - span, columns - span)
        for y in range(min(pool, rows - span)):
            for x in range(min(pool, columns - span)):
                x_of = F.conv2d(F.max_pool2d(maps[:, :, y:, x:], pool), first.weight, first.bias)
                for layer in rest:
                    x_of = layer(x_of)
                result[:, :, y::pool, x::pool] = x_of
        found.append(result)
    return Views(*found)


def in_pixels(
    boxes: Float[Tensor, "batch 4 rows columns"], *, stride: int, window: int, scale: float
) -> Float[Tensor, "batch windows 4"]:
    """Convert boxes from window coordinates to pixels in the image before it was enlarged `scale` times."""
    y, x = (stride * torch.arange(length, device=boxes.device) for length in boxes.shape[2:])
    corner = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x)))).repeat(2, 1, 1)
    return ((boxes * window + corner) / scale).flatten(2).mT


class Accumulated(NamedTuple):
    boxes: Float[Tensor, "batch n 4"]
    scores: Float[Tensor, "batch n classes"]  # 0 for boxes that were merged into another


def accumulate(
    boxes: Float[Tensor, "batch n 4"], scores: Float[Tensor, "batch n classes"], *, threshold: float = 0.5
) -> Accumulated:
    """Section 4.3's greedy merge: replaces the two best matching boxes by their mean and adds their scores.

    Stops when no two boxes have an intersection over union of at least `threshold`. (The paper's match score
    adds the distance between centres and the intersection's area, but the paper does not give their scale.)
    """
    boxes, scores = boxes.clone(), scores.clone()
    rows = torch.arange(len(boxes), device=boxes.device)
    count = boxes.shape[1]
    upper = torch.ones(count, count, dtype=torch.bool, device=boxes.device).triu(1)
    gone: Bool[Tensor, "batch n"] = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for _ in range(count - 1):
        match = iou_of_pairs(*torch.broadcast_tensors(boxes[:, :, None], boxes[:, None])).masked_fill(
            ~upper | gone[:, :, None] | gone[:, None], -1.0
        )
        best, pair = match.flatten(1).max(1)
        mine = best >= threshold
        if not mine.any():
            break
        row, a, b = rows[mine], pair[mine] // count, pair[mine] % count
        boxes[row, a] = (boxes[row, a] + boxes[row, b]) / 2
        scores[row, a] += scores[row, b]
        scores[row, b] = 0
        gone[row, b] = True
    return Accumulated(boxes, scores)


def iou_of_pairs(a: Float[Tensor, "*many 4"], b: Float[Tensor, "*many 4"]) -> Float[Tensor, "*many"]:
    """Intersection over union of each box in a and the box at the same index in b."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
