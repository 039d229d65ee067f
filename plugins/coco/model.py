"""Implements a small detector that predicts a class (or background) and a box at each cell of the maps.

The paper's detector has deformable parts on hand-crafted features. This detector is of a later kind: one
convolutional network without anchors or proposals, trained on all cells at once.

Dimensions: batch, classes, cells, most (objects in an image), found.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack.scores import box_iou

from .dataset import Batch


class Cells(NamedTuple):
    """The network's output for each cell."""

    scores: Float[Tensor, "batch cells classes_and_none"]  # logits; the first is the background's
    boxes: Float[Tensor, "batch cells 4"]  # x1, y1, x2, y2 in pixels


class Found(NamedTuple):
    """Detections in one image, sorted by score in descending order."""

    boxes: Float[Tensor, "found 4"]
    scores: Float[Tensor, " found"]
    labels: Int64[Tensor, " found"]


class Detector(nn.Module):
    """Convolutions with batch normalisation and ReLU, and two 1 × 1 convolutions for classes and boxes.

    widths   channels of each convolution; the first is 5 × 5, the others are 3 × 3
    halving  number of convolutions with stride 2, which come first; a cell has a side of 2 ** halving
    """

    def __init__(self, classes: int, *, widths: Sequence[int] = (24, 48, 64, 64), halving: int = 2) -> None:
        super().__init__()
        self.stride = 2**halving
        self.features, maps = nn.Sequential(), 3
        for i, width in enumerate(widths):
            side = 3 if i else 5
            stride = 2 if i < halving else 1
            self.features.append(nn.Conv2d(maps, width, side, stride, padding=side // 2, bias=False))
            self.features.extend((nn.BatchNorm2d(width), nn.ReLU()))
            maps = width
        self.score = nn.Conv2d(maps, classes + 1, 1)
        self.sides = nn.Conv2d(maps, 4, 1)
        nn.init.zeros_(self.score.bias)
        nn.init.constant_(self.sides.bias, 1.0)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Cells:
        maps = self.features(images - 0.5)
        scores = self.score(maps).flatten(2).mT
        away = self.stride * F.softplus(self.sides(maps)).flatten(2).mT  # left, up, right, down
        middles = centres(*maps.shape[2:], self.stride).to(away)
        return Cells(scores, torch.cat((middles - away[..., :2], middles + away[..., 2:]), -1))


def centres(rows: int, columns: int, stride: int) -> Float[Tensor, "cells 2"]:
    """x and y of the cells' centres in pixels, row by row."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return (torch.stack((x, y), -1).flatten(0, 1) + 0.5) * stride


def assigned(
    batch: Batch, middles: Float[Tensor, "cells 2"], stride: int
) -> tuple[Int64[Tensor, "batch cells"], Float[Tensor, "batch cells 4"]]:
    """Each cell's class (0 for background, label + 1) and box. A box gets the cells in its central half.

    A cell in several boxes goes to the smallest. The central half is at least one cell wide, so each object
    has a cell unless a smaller one takes it.
    """
    if not batch.boxes.shape[1]:
        none = torch.zeros(len(batch.boxes), len(middles), dtype=torch.int64, device=batch.boxes.device)
        return none, none[..., None].expand(-1, -1, 4).to(batch.boxes)
    corners, ends = batch.boxes[..., :2], batch.boxes[..., 2:]
    extent = ends - corners
    reach = (extent / 4).clamp(min=stride / 2)
    away = (middles[:, None] - ((corners + ends) / 2)[:, None]).abs()  # (batch, cells, most, 2)
    inside = (away <= reach[:, None]).all(-1) & (batch.labels >= 0)[:, None]
    areas = extent.prod(-1)[:, None].expand(inside.shape).masked_fill(~inside, torch.inf)
    owner = areas.argmin(2)
    labels = (batch.labels + 1).gather(1, owner).masked_fill(~inside.any(2), 0)
    return labels, batch.boxes.gather(1, owner[..., None].expand(-1, -1, 4))


def detection_loss(cells: Cells, batch: Batch, stride: int) -> Float[Tensor, ""]:
    """Cross-entropy of all cells' classes, plus 1 - intersection over union of object cells' boxes.

    Both sums are divided by the number of object cells.
    """
    rows, columns = (length // stride for length in batch.images.shape[2:])
    middles = centres(rows, columns, stride).to(batch.boxes)
    labels, boxes = assigned(batch, middles, stride)
    own = labels > 0
    count = own.sum().clamp(min=1)
    classes = F.cross_entropy(cells.scores.flatten(0, 1), labels.flatten(), reduction="sum") / count
    return classes + (1 - iou_of_pairs(cells.boxes[own], boxes[own])).sum() / count


def iou_of_pairs(a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Intersection over union of corresponding boxes of a and b."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (a, b)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)


def suppressed(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float
) -> Int64[Tensor, " kept"]:
    """Indices of boxes that no higher-scoring box overlaps by more than `threshold`, by descending score."""
    order = scores.argsort(descending=True, stable=True)
    beats = (box_iou(boxes[order], boxes[order]) > threshold).triu(1)
    kept = torch.ones_like(order, dtype=torch.bool)
    # After k rounds the best k boxes are decided. Usually a few rounds decide all boxes.
    while not torch.equal(now := ~(beats & kept[:, None]).any(0), kept):
        kept = now
    return order[kept]


@torch.no_grad()
def detect(
    network: nn.Module, images: Float[Tensor, "batch 3 side side"], *, least: float = 0.05, most: int = 100
) -> list[Found]:
    """At most `most` detections per image with scores of at least `least`, after suppression per class."""
    cells = network(images)
    detections = []
    probabilities = cells.scores.float().softmax(2)[..., 1:].cpu()
    for scores, boxes in zip(probabilities, cells.boxes.float().cpu(), strict=True):
        kept = []
        for one, certain in enumerate(scores.T):  # classes do not suppress each other
            sure = (certain >= least).nonzero()[:, 0]
            cell = sure[suppressed(boxes[sure], certain[sure], 0.5)]
            kept.append(torch.stack((cell, torch.full_like(cell, one))))
        cell, label = torch.cat(kept, 1)
        best = scores[cell, label].argsort(descending=True, stable=True)[:most]
        cell, label = cell[best], label[best]
        detections.append(Found(boxes[cell], scores[cell, label], label))
    return detections
