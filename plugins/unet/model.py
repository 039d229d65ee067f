"""The network of figure 1, its border weights, and the elastic deformation.

Dimensions: batch, channels, maps, classes, rows, columns, height, width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

Maps = Float[Tensor, "batch maps rows columns"]


class Pair(nn.Sequential):
    """Two 3 × 3 convolutions, each with a ReLU. `padding` is 0 as in the paper, or 1 to keep the size."""

    def __init__(self, inputs: int, outputs: int, padding: int) -> None:
        super().__init__(
            *(nn.Conv2d(inputs, outputs, 3, padding=padding), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, padding=padding), nn.ReLU()),
        )


class UNet(nn.Module):
    """Class scores for each pixel, by a contracting and an expanding path with skip connections.

    widths   channels of each level; each level has half the side length of the level above
    padding  0: borders are lost, 572 × 572 becomes 388 × 388. 1: the size is kept
    joins    number of levels with a skip connection, starting from the deepest; None: all. At other levels
             the expanding path gets all its channels from below
    dropout  rate at the end of the contracting path (section 3.1, which gives no probability)
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        classes: int = 2,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        padding: int = 0,
        joins: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.joins = len(widths) - 1 if joins is None else joins
        self.down, inputs = nn.ModuleList(), channels
        for width in widths:
            self.down.append(Pair(inputs, width, padding))
            inputs = width
        self.pool, self.dropout = nn.MaxPool2d(2), nn.Dropout(dropout)
        self.ups, self.up_pairs = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(reversed(widths[:-1])):
            from_below = width if level < self.joins else 2 * width
            self.ups.append(nn.ConvTranspose2d(inputs, from_below, 2, stride=2))
            self.up_pairs.append(Pair(2 * width, width, padding))
            inputs = width
        self.score = nn.Conv2d(inputs, classes, 1)
        init_weights(self)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes _ _"]:
        left, x = [], images
        for level, pair in enumerate(self.down):
            x = pair(x if level == 0 else self.pool(x))
            left.append(x)
        x = self.dropout(x)
        for level, (up, pair) in enumerate(zip(self.ups, self.up_pairs, strict=True)):
            x = up(x)
            if level < self.joins:
                x = join(left[-2 - level], x)
            x = pair(x)
        return self.score(x)


def init_weights(network: nn.Module) -> None:
    """Section 3: normally distributed convolution weights with a standard deviation of sqrt(2 / fan-in)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class WindowNet(nn.Sequential):
    """The sliding-window rival: a network that labels a pixel from the square of pixels around it.

    It runs on the whole zero-padded image at once, which gives the scores of all windows.

    dilations  dilation of each 3 × 3 convolution; the window's side is 1 + 2 · their sum
    """

    def __init__(
        self, *, channels: int = 3, classes: int = 1, maps: int = 24, dilations: Sequence[int] = (1,) * 7
    ) -> None:
        super().__init__()
        for apart in dilations:
            self.extend((nn.Conv2d(channels, maps, 3, padding=apart, dilation=apart), nn.ReLU()))
            channels = maps
        self.append(nn.Conv2d(maps, classes, 1))
        init_weights(self)


def join(beside: Maps, below: Float[Tensor, "batch lower _ _"]) -> Float[Tensor, "batch joined _ _"]:
    """Crop the contracting path's maps to the size of the maps from below, and concatenate both."""
    return torch.cat((middle_of(beside, *below.shape[2:]), below), 1)


def middle_of(x: Maps, rows: int, columns: int) -> Float[Tensor, "batch maps {rows} {columns}"]:
    """The central crop."""
    top, left = (x.shape[2] - rows) // 2, (x.shape[3] - columns) // 2
    return x[:, :, top : top + rows, left : left + columns]


def border_weights(
    masks: Bool[Tensor, "objects height width"], *, w0: float = 10.0, sigma: float = 5.0
) -> Float[Tensor, "height width"]:
    """Equation 2 without its class weights: the weights are large between objects that nearly touch.

    Outside objects the weight is 1 + w0 exp(-(d1 + d2)² / 2σ²), where d1 and d2 are the distances to the two
    nearest objects. Inside objects the weight is 1. If there are fewer than two objects, it is 1 everywhere.
    """
    weights = torch.ones(masks.shape[1:])
    if len(masks) < 2:
        return weights
    pixels = torch.cartesian_prod(*(torch.arange(side) for side in masks.shape[1:])).float()
    distances = torch.stack([torch.cdist(pixels, mask.nonzero().float()).amin(1) for mask in masks])
    nearest = distances.topk(2, 0, largest=False).values.sum(0).view(masks.shape[1:])
    gap = w0 * (-nearest.square() / (2 * sigma**2)).exp()
    return torch.where(masks.any(0), weights, weights + gap)


def deformed(
    images: Float[Tensor, "batch channels side side"],
    masks: Int64[Tensor, "batch side side"],
    generator: torch.Generator,
    *,
    std: float,
    grid: int = 3,
) -> tuple[Float[Tensor, "batch channels side side"], Int64[Tensor, "batch side side"]]:
    """Section 3.1: deform images and masks in the same way, by random displacements on a coarse grid.

    std   standard deviation of a displacement, in pixels; displacements are interpolated bicubically
    grid  grid points along each side
    """
    batch, side = images.shape[0], images.shape[-1]
    coarse = std * torch.randn(batch, 2, grid, grid, generator=generator)
    moved = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    line = (torch.arange(side) + 0.5) * 2 / side - 1
    places = torch.stack((line.expand(side, side), line[:, None].expand(side, side)), -1)
    return resampled(images, masks, places + moved * 2 / side)


def resampled(
    images: Float[Tensor, "batch channels side side"],
    masks: Int64[Tensor, "batch side side"],
    places: Float[Tensor, "batch side side 2"],
) -> tuple[Float[Tensor, "batch channels side side"], Int64[Tensor, "batch side side"]]:
    """Images (bilinear) and masks (nearest neighbour) at `places`, the coordinates of `F.grid_sample`."""
    where, look = places.to(images.device), {"padding_mode": "border", "align_corners": False}
    bent = F.grid_sample(images.float(), where, mode="bilinear", **look)
    labels = F.grid_sample(masks[:, None].float(), where, mode="nearest", **look)
    return bent.to(images.dtype), labels[:, 0].round().long()
