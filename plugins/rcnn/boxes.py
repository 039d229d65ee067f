"""Operations on boxes: clipping, regression targets, overlaps and non-maximum suppression.

Boxes are x1, y1, x2, y2 in pixels, half-open. Dimensions: n and m boxes.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Boxes = Float[Tensor, "*n 4"]
_LARGEST = 4.135  # log(1000 / 16), the largest log scale, so no exponential overflows


def _centred(boxes: Boxes) -> tuple[Float[Tensor, "*n 2"], Float[Tensor, "*n 2"]]:
    """Centres and sides."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def encode(targets: Boxes, boxes: Boxes) -> Boxes:
    """Regression targets from `boxes` to `targets` (appendix C): shifts relative to the sides, log scales."""
    (middle, sides), (wanted, theirs) = _centred(boxes), _centred(targets)
    # t = ((Gx - Px) / Pw, (Gy - Py) / Ph, log(Gw / Pw), log(Gh / Ph))
    return torch.cat(((wanted - middle) / sides, (theirs / sides).log()), -1)


def decode(codes: Boxes, boxes: Boxes) -> Boxes:
    """Apply `codes` to `boxes`. This is the inverse of `encode`."""
    middle, sides = _centred(boxes)
    middle = middle + codes[..., :2] * sides
    half = codes[..., 2:].clamp(max=_LARGEST).exp() * sides / 2
    return torch.cat((middle - half, middle + half), -1)


def clip(boxes: Boxes, height: int, width: int) -> Boxes:
    """The part of each box that lies in the image."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor((width, height, width, height)))


def overlaps(a: Float[Tensor, "*many n 4"], b: Float[Tensor, "*many m 4"]) -> Float[Tensor, "*many n m"]:
    """Intersection over union of all pairs of boxes, for many images at once; 0 if the union is empty.

    Computes in float32 or wider, because areas in half precision are too coarse for a threshold.
    """
    a, b = (boxes.float() if boxes.dtype.itemsize < 4 else boxes for boxes in (a, b))
    mine, theirs = a[..., :, None, :], b[..., None, :, :]
    low, high = torch.maximum(mine[..., :2], theirs[..., :2]), torch.minimum(mine[..., 2:], theirs[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = (mine[..., 2:] - mine[..., :2]).prod(-1) + (theirs[..., 2:] - theirs[..., :2]).prod(-1) - common
    return torch.where(union > 0, common / union, torch.zeros_like(union))


def unsuppressed(
    boxes: Float[Tensor, "*many n 4"], scores: Float[Tensor, "*many n"], threshold: float
) -> Bool[Tensor, "*many n"]:
    """Greedy non-maximum suppression of many images at once: True for boxes that are kept.

    In order of descending score, a box is kept unless its overlap with a kept box exceeds `threshold`.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    ranked = boxes.gather(-2, order[..., None].expand_as(boxes))
    near = overlaps(ranked, ranked) > threshold
    stays = torch.ones_like(order, dtype=torch.bool)
    for place in range(order.shape[-1] - 1):
        beaten = near[..., place, place + 1 :] & stays[..., place, None]
        stays[..., place + 1 :] &= ~beaten
    return torch.zeros_like(stays).scatter(-1, order, stays)


def nms(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float) -> Int64[Tensor, " kept"]:
    """Indices of the boxes kept in one image, in order of descending score."""
    order = scores.argsort(descending=True, stable=True)
    return order[unsuppressed(boxes, scores, threshold)[order]]
