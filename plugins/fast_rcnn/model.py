"""Implements RoI pooling, a detector whose regions share feature maps, its loss, and dense layers as SVDs.

Dimensions: images, regions, maps (channels), rows, columns, classes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..rcnn.model import POOLED, STRIDE, Backbone, Head

Pooled = Float[Tensor, "regions maps size size"]


def roi_pool(
    maps: Float[Tensor, "images maps rows columns"],
    boxes: Float[Tensor, "regions 4"],
    image: Int64[Tensor, " regions"],
    *,
    size: int,
    scale: float,
) -> Pooled:
    """The maximum in each of size × size cells of a region (section 2.1).

    boxes  in pixels of the images
    image  index of each region's image
    scale  positions in the maps per pixel

    A region's edges are rounded to positions in the maps, and both ends belong to the region. The bounds of
    its size × size cells are rounded outwards, so neighbouring cells may share a row. Values beyond the maps
    count as 0.
    """
    (height, width), channels = maps.shape[2:], maps.shape[1]
    # Half precision would round edges to other cells.
    boxes = boxes.detach()
    corners = (boxes.float() if boxes.dtype.itemsize < 4 else boxes) * scale
    corners = torch.where(corners >= 0, (corners + 0.5).floor(), (corners - 0.5).ceil())
    down, rows_empty = _cells(corners[:, 1], corners[:, 3], size, height)
    across, columns_empty = _cells(corners[:, 0], corners[:, 2], size, width)
    places = down[:, :, None, :, None] * width + across[:, None, :, None, :]
    places = places + image[:, None, None, None, None] * (height * width)
    values = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    windows = values.index_select(0, places.flatten()).view(
        len(boxes), size, size, down.shape[2] * across.shape[2], channels
    )
    empty = rows_empty[:, :, None] | columns_empty[:, None, :]
    best = windows.max(3).values.masked_fill(empty[..., None], 0)
    return best.permute(0, 3, 1, 2)


def _cells(
    first: Float[Tensor, " regions"], last: Float[Tensor, " regions"], size: int, length: int
) -> tuple[Int64[Tensor, "regions size longest"], Tensor]:
    """Positions of each of `size` cells along one side, and which cells are empty.

    A short cell repeats its last position, which does not change the maximum.
    """
    step = (last - first + 1).clamp(min=1)[:, None] / size
    number = torch.arange(size, device=first.device, dtype=first.dtype)
    begin = ((number * step).floor() + first[:, None]).clamp(0, length).long()
    end = (((number + 1) * step).ceil() + first[:, None]).clamp(0, length).long()
    longest = max(int((end - begin).amax()), 1) if len(first) else 1
    places = begin[..., None] + torch.arange(longest, device=first.device)
    return places.minimum(end[..., None] - 1).clamp(0, length - 1), end <= begin


class FastRCNN(nn.Module):
    """Runs the convolutions once per image, pools each region from their maps, and predicts its class and
    box.

    classes  number of classes without background, which is the last score
    cells    cells per side of a pooled region; R-CNN's network has 4, and with 1 a region is one cell
    """

    def __init__(self, classes: int, *, cells: int = POOLED) -> None:
        super().__init__()
        self.classes, self.cells = classes, cells
        self.backbone, self.head = Backbone(), Head(classes + 1)
        self.codes = nn.Linear(self.head.hidden.out_features, 4 * classes)
        # Section 2.3: with a standard deviation of 0.001 the boxes start close to the proposals.
        if not self.codes.weight.is_meta:
            nn.init.normal_(self.codes.weight, std=0.001)
            nn.init.zeros_(self.codes.bias)

    def regions(
        self, maps: Float[Tensor, "images maps rows columns"], boxes: Float[Tensor, "images regions 4"]
    ) -> tuple[Float[Tensor, "images regions scores"], Float[Tensor, "images regions classes 4"]]:
        """Class logits and box codes, from given feature maps."""
        image = torch.arange(len(maps), device=maps.device).repeat_interleave(boxes.shape[1])
        pooled = roi_pool(maps, boxes.flatten(0, 1), image, size=self.cells, scale=1 / STRIDE)
        times = POOLED // self.cells
        pooled = pooled.repeat_interleave(times, 2).repeat_interleave(times, 3)
        hidden, scores = self.head(pooled)
        shape = (len(maps), boxes.shape[1])
        return scores.unflatten(0, shape), self.codes(hidden).unflatten(1, (-1, 4)).unflatten(0, shape)

    def forward(
        self, images: Float[Tensor, "images 3 height width"], boxes: Float[Tensor, "images regions 4"]
    ) -> tuple[Float[Tensor, "images regions scores"], Float[Tensor, "images regions classes 4"]]:
        return self.regions(self.backbone(images), boxes)


def smooth_l1(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Equation 3."""
    size = x.abs()  # x² / 2 up to 1, then |x| - 1 / 2
    return torch.where(size < 1, x.square() / 2, size - 0.5)


def detection_loss(
    scores: Float[Tensor, "regions scores"],
    codes: Float[Tensor, "regions classes 4"],
    labels: Int64[Tensor, " regions"],
    targets: Float[Tensor, "regions 4"],
) -> Float[Tensor, ""]:
    """Equation 1, averaged over all regions: cross-entropy, and for objects the box codes of their own class.

    labels  class of each region; the last score is the background, which has no box
    """
    objects = labels < codes.shape[1]
    own = codes[objects, labels[objects]]
    return F.cross_entropy(scores, labels) + smooth_l1(own - targets[objects]).sum() / len(labels)


def truncated(layer: nn.Linear, rank: int) -> nn.Sequential:
    """Section 3.1: two layers that approximate a dense layer by its `rank` largest singular values.

    With W ≈ U Σ Vᵀ, the first layer has the weights Σ Vᵀ and no bias, and the second has the weights U and
    the bias. Together they have t (u + v) weights instead of u v. Computed in float64, because half precision
    has no SVD.
    """
    u, s, v = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features)
    with torch.no_grad():
        first.weight.copy_(s[:rank, None] * v[:rank])
        second.weight.copy_(u[:, :rank])
        second.bias.copy_(layer.bias)
    return nn.Sequential(first, second).to(layer.weight)
