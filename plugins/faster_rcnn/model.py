"""Implements anchors, the region proposal network, its training targets, and the whole detector.

Dimensions: images, objects, maps (channels), rows, columns, anchors, regions, classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..fast_rcnn.model import FastRCNN, smooth_l1
from ..rcnn.boxes import clip, decode, encode, overlaps, unsuppressed
from ..rcnn.model import STRIDE

SIDES = (10.0, 14.0, 18.0)  # sides of our anchors, in pixels
RATIOS = (1.0, 2.0)  # height over width


def anchors_at(sides: Sequence[float], ratios: Sequence[float]) -> Float[Tensor, "anchors 4"]:
    """Boxes around (0, 0), one for each ratio of height to width and each side of a square of equal area."""
    height = torch.tensor(ratios).sqrt()[:, None] * torch.tensor(sides)
    width = torch.tensor(ratios).rsqrt()[:, None] * torch.tensor(sides)
    half = torch.stack((width, height), -1).flatten(0, 1) / 2
    return torch.cat((-half, half), -1)


def anchors_over(
    base: Float[Tensor, "anchors 4"], rows: int, columns: int, stride: int
) -> Float[Tensor, "all 4"]:
    """`base` at each cell of the maps, row by row, with the anchors of a cell next to each other."""
    y, x = (torch.arange(n, device=base.device, dtype=base.dtype) * stride for n in (rows, columns))
    corner = torch.cartesian_prod(y, x).flip(-1)
    return (corner.repeat(1, 2)[:, None] + base).flatten(0, 1)


class RPN(nn.Module):
    """Section 3.1: a 3 × 3 window slides over the maps and predicts a score and a box code for each anchor.

    The paper has two scores per anchor and a softmax. One score and a sigmoid are equivalent.
    """

    def __init__(self, maps: int, hidden: int, anchors: int) -> None:
        super().__init__()
        self.window = nn.Conv2d(maps, hidden, 3, padding=1)
        self.score = nn.Conv2d(hidden, anchors, 1)
        self.code = nn.Conv2d(hidden, 4 * anchors, 1)
        for layer in (self.window, self.score, self.code):
            if not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(
        self, maps: Float[Tensor, "images maps rows columns"]
    ) -> tuple[Float[Tensor, "images all"], Float[Tensor, "images all 4"]]:
        """Objectness logits and box codes, in the order of `anchors_over`."""
        x = self.window(maps).relu()
        return (
            self.score(x).permute(0, 2, 3, 1).flatten(1),
            self.code(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)),
        )


class Matched(NamedTuple):
    """Training targets of the anchors."""

    labels: Int64[Tensor, "images all"]  # 1: object, 0: background, -1: ignored
    boxes: Float[Tensor, "images all 4"]  # box of the object that the anchor overlaps most


def match(
    anchors: Float[Tensor, "all 4"],
    boxes: Float[Tensor, "images objects 4"],
    *,
    height: int,
    width: int,
    positive: float = 0.7,
    negative: float = 0.3,
) -> Matched:
    """Section 3.1.2: labels the anchors by their overlap with objects, and gives each its object's box.

    An anchor is positive if an overlap is at least 0.7, or if no other anchor overlaps an object more. It is
    negative if all its overlaps are below 0.3. Anchors in between are ignored, as are those that cross the
    image's border.

    boxes  padded with zeros
    """
    inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)
    overlap = overlaps(anchors.expand(len(boxes), -1, -1), boxes) * inside[:, None]
    best, place = overlap.max(2)
    highest = overlap.amax(1, keepdim=True)
    is_best = ((overlap == highest) & (highest > 0)).any(2)
    labels = torch.full_like(place, -1)
    labels[best < negative] = 0
    labels[(best >= positive) | is_best] = 1
    labels[:, ~inside] = -1
    return Matched(labels, boxes.gather(1, place[..., None].expand(-1, -1, 4)))


def sample(
    labels: Int64[Tensor, "images all"], count: int, generator: torch.Generator
) -> Int64[Tensor, "images all"]:
    """Keep at most `count` labels per image, at most half of them positive. The others become -1."""
    chance = torch.rand(labels.shape, generator=generator).to(labels.device)
    kept = torch.full_like(labels, -1)
    for row, (label, order) in enumerate(zip(labels, chance, strict=True)):
        left = count
        for wanted, most in ((1, count // 2), (0, count)):
            those = (label == wanted).nonzero().flatten()
            those = those[order[those].argsort()][: min(most, left)]
            kept[row, those] = wanted
            left -= len(those)
    return kept


def rpn_loss(
    scores: Float[Tensor, "images all"],
    codes: Float[Tensor, "images all 4"],
    anchors: Float[Tensor, "all 4"],
    matched: Matched,
) -> Float[Tensor, ""]:
    """Equation 1: objectness, averaged over the sampled anchors, plus the box codes of positive anchors.

    The paper divides the second term by the number of cells and multiplies it by 10, so that both terms have
    about the same weight. We divide both by the number of sampled anchors.
    """
    known = matched.labels >= 0
    objects = matched.labels == 1
    wanted = encode(matched.boxes[objects], anchors.expand(len(scores), -1, -1)[objects])
    names = F.binary_cross_entropy_with_logits(scores[known], objects[known].to(scores), reduction="sum")
    return (names + smooth_l1(codes[objects] - wanted.to(codes)).sum()) / known.sum().clamp(min=1)


def propose(
    scores: Float[Tensor, "images all"],
    codes: Float[Tensor, "images all 4"],
    anchors: Float[Tensor, "all 4"],
    *,
    height: int,
    width: int,
    before: int,
    regions: int,
    overlap: float = 0.7,
) -> Float[Tensor, "images regions 4"]:
    """Section 3.3: decode the best `before` anchors, clip them, and suppress those that overlap a better one.

    If fewer than `regions` are left, suppressed boxes follow. No gradient flows through the proposals.
    """
    scores, codes = scores.detach(), codes.detach()
    scores, rows = scores.topk(min(before, scores.shape[1]), 1)
    moved = decode(codes.gather(1, rows[..., None].expand(-1, -1, 4)), anchors[rows].to(codes))
    boxes = clip(moved.float(), height, width)
    stays = unsuppressed(boxes, scores, overlap)
    first = (stays.int() * 2 * stays.shape[1] - torch.arange(stays.shape[1], device=stays.device)).argsort(
        dim=1, descending=True
    )[:, :regions]
    return boxes.gather(1, first[..., None].expand(-1, -1, 4))


class FasterRCNN(nn.Module):
    """Fast R-CNN with regions proposed by an RPN on the same maps."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.detector = FastRCNN(classes)
        self.rpn = RPN(self.detector.backbone.conv3.out_channels, 32, len(SIDES) * len(RATIOS))
        self.register_buffer("base", anchors_at(SIDES, RATIOS) + STRIDE / 2, persistent=False)

    def anchors(self, maps: Float[Tensor, "images maps rows columns"]) -> Float[Tensor, "all 4"]:
        return anchors_over(self.base.float(), *maps.shape[2:], STRIDE)

    def proposals(
        self, maps: Float[Tensor, "images maps rows columns"], regions: int
    ) -> Float[Tensor, "images regions 4"]:
        """The best regions of each image, in descending order of score.

        Suppression uses an overlap of 0.4 instead of the paper's 0.7. We keep three regions instead of 300,
        and at 0.7 the best three are all on one object. 300 of 3,456 anchors are decoded.
        """
        height, width = (STRIDE * side for side in maps.shape[2:])
        scores, codes = self.rpn(maps)
        anchors = self.anchors(maps)
        return propose(
            scores, codes, anchors, height=height, width=width, before=300, regions=regions, overlap=0.4
        )

    def forward(
        self, images: Float[Tensor, "images 3 height width"], regions: int
    ) -> tuple[
        Float[Tensor, "images regions 4"],
        Float[Tensor, "images regions scores"],
        Float[Tensor, "images regions classes 4"],
    ]:
        """The proposals, their class logits and their box codes."""
        maps = self.detector.backbone(images)
        boxes = self.proposals(maps, regions)
        return boxes, *self.detector.regions(maps, boxes)
