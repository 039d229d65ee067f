"""The components of R-CNN: warped regions, a small network for them, linear SVMs and ridge regression.

Dimensions: images, regions, maps (channels), classes, rows (examples), features.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

CROP = 16  # side of a warped region, in pixels
POOLED = 4  # side of a region after pooling, in cells of the last feature maps
STRIDE = 2  # stride of the last feature maps, in pixels


def warp(
    images: Float[Tensor, "images 3 height width"],
    boxes: Float[Tensor, "regions 4"],
    image: Int64[Tensor, " regions"],
    *,
    side: int = CROP,
    context: int = 1,
) -> Float[Tensor, "regions 3 side side"]:
    """Warp each region to a square, whatever its shape (section 2.1).

    image    index of the image that a region lies in
    context  pixels of context on each side of the box, within the square; the paper uses 16 of 227
    """
    height, width = images.shape[2:]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * side / (side - 2 * context)
    line = (2 * torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 1) / side - 1
    x = middle[:, :1] + half[:, :1] * line
    y = middle[:, 1:] + half[:, 1:] * line
    return _look_up(images, image, x.clamp(0.5, width - 0.5) - 0.5, y.clamp(0.5, height - 0.5) - 0.5)


def _look_up(
    images: Float[Tensor, "images 3 height width"],
    image: Int64[Tensor, " regions"],
    x: Float[Tensor, "regions side"],
    y: Float[Tensor, "regions side"],
) -> Float[Tensor, "regions 3 side side"]:
    """Bilinear interpolation at all pairs of a region's x and y. Pixel centres are at integers."""
    height, width = images.shape[2:]
    left, top = (v.long().clamp(max=last - 2) for v, last in ((x, width), (y, height)))
    across, down = (x - left)[:, None, None, :], (y - top)[:, None, :, None]
    rows = images.transpose(0, 1).flatten(1)

    def at(dy: int, dx: int) -> Tensor:
        place = (image[:, None, None] * height + (top + dy)[:, :, None]) * width + (left + dx)[:, None, :]
        return rows[:, place].transpose(0, 1)

    upper = at(0, 0) + across * (at(0, 1) - at(0, 0))
    lower = at(1, 0) + across * (at(1, 1) - at(1, 0))
    return upper + down * (lower - upper)


class Backbone(nn.Module):
    """Three convolutions, which map images to feature maps of half the side length."""

    def __init__(self, maps: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, maps // 2, 5, padding=2)
        self.conv2 = nn.Conv2d(maps // 2, maps, 3, padding=1)
        self.conv3 = nn.Conv2d(maps, maps, 3, padding=1)
        init_weights(self)

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images maps _ _"]:
        x = F.max_pool2d(self.conv1(images).relu(), 2)
        return self.conv3(self.conv2(x).relu()).relu()


class Head(nn.Module):
    """A hidden layer and an output layer on pooled feature maps of regions, for all R-CNN variants."""

    def __init__(self, scores: int, *, maps: int = 32, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = nn.Linear(maps * POOLED**2, hidden)
        self.scores = nn.Linear(hidden, scores)
        init_weights(self)

    def forward(
        self, pooled: Float[Tensor, "regions maps rows columns"]
    ) -> tuple[Float[Tensor, "regions hidden"], Float[Tensor, "regions scores"]]:
        """The hidden activations and the scores."""
        hidden = self.hidden(pooled.flatten(1)).relu()
        return hidden, self.scores(hidden)


def init_weights(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class RegionNet(nn.Module):
    """A small AlexNet for warped regions, which scores the classes and the background."""

    def __init__(self, scores: int) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), Head(scores)

    def pooled(self, crops: Float[Tensor, "regions 3 side side"]) -> Float[Tensor, "regions maps 4 4"]:
        """The last pooled feature maps, called pool5 in the paper."""
        return F.max_pool2d(self.backbone(crops), CROP // STRIDE // POOLED)

    def forward(self, crops: Float[Tensor, "regions 3 side side"]) -> Float[Tensor, "regions scores"]:
        return self.head(self.pooled(crops))[1]


def hog(
    crops: Float[Tensor, "regions 3 side side"], *, cell: int = 4, bins: int = 9
) -> Float[Tensor, "regions features"]:
    """Histograms of oriented gradients (Dalal and Triggs 2005): the features that R-CNN replaced.

    A pixel's gradient is taken from the channel with the largest gradient. Its length is divided between the
    two nearest of `bins` orientations (over half a turn) in its cell's histogram. Cells are normalised in
    overlapping blocks of 2 × 2, clipped at 0.2 and normalised again.
    """
    padded = F.pad(crops, (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    length, channel = (dx.square() + dy.square()).max(1, keepdim=True)
    dx, dy, length = dx.gather(1, channel), dy.gather(1, channel), (length + 1e-12).sqrt()
    direction = torch.atan2(dy, dx).remainder(torch.pi) * bins / torch.pi - 0.5
    centres = torch.arange(bins, device=crops.device, dtype=crops.dtype)[:, None, None]
    away = (direction - centres).abs()
    share = (1 - torch.minimum(away, bins - away)).clamp(min=0)
    cells = F.avg_pool2d(share * length, cell) * cell**2
    blocks = F.unfold(cells, 2).transpose(1, 2)
    for _ in range(2):
        blocks = (blocks / (blocks.square().sum(-1, keepdim=True) + 1e-4).sqrt()).clamp(max=0.2)
    return (blocks / (blocks.square().sum(-1, keepdim=True) + 1e-4).sqrt()).flatten(1)


class Linear(NamedTuple):
    """One linear function for each class."""

    weight: Float[Tensor, "classes features"]
    bias: Float[Tensor, " classes"]

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows classes"]:
        return x @ self.weight.T + self.bias


def linear_svms(
    x: Float[Tensor, "rows features"],
    y: Int64[Tensor, "rows classes"],
    *,
    C: float,
    iterations: int = 30,
) -> Linear:
    """A one-against-all linear SVM for each class: |w|² / 2 + C × the sum of squared hinge losses.

    y  1 or -1; a row with 0 is ignored for that class
    """
    weight = x.new_zeros(y.shape[1], x.shape[1]).requires_grad_()
    bias = x.new_zeros(y.shape[1]).requires_grad_()
    target, counts = y.to(x), (y != 0).to(x)
    optimizer = torch.optim.LBFGS((weight, bias), max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        hinge = counts * (1 - target * (x @ weight.T + bias)).clamp(min=0)
        loss = weight.square().sum() / 2 + C * hinge.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return Linear(weight.detach(), bias.detach())


def ridge(
    x: Float[Tensor, "rows features"], targets: Float[Tensor, "rows outputs"], *, penalty: float
) -> Linear:
    """Least squares with `penalty` on the weights but not on the bias (appendix C, equation 5)."""
    mean, middle = x.mean(0), targets.mean(0)
    centred = (x - mean).double()
    gram = centred.T @ centred
    gram.diagonal().add_(penalty)
    weight = torch.linalg.solve(gram, centred.T @ (targets - middle).double()).T.to(x)
    return Linear(weight, middle - weight @ mean)
