"""Generates pictures with one object of any size, cuts windows from them, and localises the object."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack.data import scenes
from readtrack.plugin import Run

from .model import accumulate, in_pixels

CLASSES = 5
SIDE = 40  # side of a picture in pixels
WINDOW = 24
SCALES = (24, 34, 48)  # the picture's side after resizing, before windows are cut out of it
READABLE = (9, 20)  # the larger side, in pixels, of objects in training windows
GLANCE = 14  # larger side, in pixels, of the found box in a `second_glance`, about the mean of READABLE
AWAY = 4  # largest distance of the object's centre from the centre of a training window, in pixels
BRIGHTNESS = 0.3  # about the mean of all pixels

Images = Float[Tensor, "batch 3 side side"]
Views = Literal["all", "middle", "five", "glances"]


class Pictures(NamedTuple):
    x: Float[Tensor, "count 3 side side"]
    y: Int64[Tensor, " count"]
    boxes: Float[Tensor, "count 4"]  # x1, y1, x2, y2 in pixels


def pictures(run: Run, part: scenes.Part, count: int) -> Pictures:
    """Scenes of level `photo`, with a digit of 8 to 30 pixels."""
    drawn = scenes.draw(count, run.data_seed(part), part, "photo", size=SIDE, digit=(8, 30), classes=CLASSES)
    fields = drawn.images - BRIGHTNESS, drawn.labels[:, 0], drawn.boxes[:, 0]
    return Pictures(*(field.to(run.device) for field in fields))


def resized(x: Images, side: int) -> Float[Tensor, "batch 3 {side} {side}"]:
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)


def readable(known: Pictures, side: int) -> Pictures:
    """Rescale, and keep pictures whose object is large enough and fits into a window near its centre."""
    boxes = known.boxes * side / SIDE
    size = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    reached = torch.minimum(middles, side - middles).amin(1) >= WINDOW / 2 - AWAY
    rows = (size >= READABLE[0]) & (size <= READABLE[1]) & reached
    return Pictures(resized(known.x[rows], side), known.y[rows], boxes[rows])


def windows(scaled: Pictures, rows: Int64[Tensor, " batch"], generator: torch.Generator) -> Pictures:
    """Cut one window from each picture. The window's centre is within `AWAY` of the object's centre.

    Boxes are relative to the window's corner, in units of the window's side.
    """
    side, boxes = scaled.x.shape[-1], scaled.boxes[rows]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    moved = AWAY * (2 * torch.rand(len(rows), 2, generator=generator).to(boxes) - 1)
    corner = (middles + moved - WINDOW / 2).round().clamp(0, side - WINDOW)
    line = torch.arange(WINDOW, device=boxes.device)
    across, down = (corner.long()[:, :, None] + line).unbind(1)
    cut = scaled.x[rows[:, None, None], :, down[:, :, None], across[:, None]]
    return Pictures(cut.permute(0, 3, 1, 2), scaled.y[rows], (boxes - corner.repeat(1, 2)) / WINDOW)


class Located(NamedTuple):
    labels: Int64[Tensor, " batch"]
    boxes: Float[Tensor, "batch 4"]
    candidates: Float[Tensor, "batch kept 4"]  # the accumulated boxes


@torch.no_grad()
def locate(network: nn.Module, x: Images, scales: Sequence[int], *, views: Views, kept: int) -> Located:
    """The class and box accumulated from the most confident windows (section 4.3).

    views  all windows of each scale, the central window, or the central window and the four corner windows
            of each scale, or these five and then a `second_glance`
    kept   number of windows whose boxes are accumulated; 1 returns the most confident box unchanged
    """
    if views == "glances":
        return second_glance(network, x, locate(network, x, scales, views="five", kept=kept))
    certain, boxes = [], []
    for side in scales:
        images = resized(x, side).to(next(network.parameters()).dtype)
        last = side - WINDOW
        middle = (last // 2, last // 2)
        corners = [(y, x) for y in (0, last) for x in (0, last)]
        for top, left in {"all": [(0, 0)], "middle": [middle], "five": [middle, *corners]}[views]:
            seen = images if views == "all" else images[:, :, top : top + WINDOW, left : left + WINDOW]
            found = network(seen)
            certain.append(found.scores.float().softmax(1).flatten(2).mT)
            scale = side / SIDE
            pixels = in_pixels(found.boxes.float(), stride=network.stride, window=WINDOW, scale=scale)
            boxes.append(pixels + torch.tensor([left, top, left, top]).to(pixels) / scale)
    scores = torch.cat(certain, 1)
    order = scores.amax(2).topk(min(kept, scores.shape[1]), 1).indices[..., None]
    candidates = torch.cat(boxes, 1).gather(1, order.expand(-1, -1, 4))
    merged = accumulate(candidates, scores.gather(1, order.expand(-1, -1, scores.shape[2])))
    best = merged.scores.flatten(1).argmax(1)
    rows, classes = torch.arange(len(best)), scores.shape[2]
    return Located(best % classes, merged.boxes[rows, best // classes], candidates)


def second_glance(network: nn.Module, x: Images, first: Located) -> Located:
    """The class and box from a window around each found box, scaled so that its larger side is `GLANCE`."""
    middles = (first.boxes[:, :2] + first.boxes[:, 2:]) / 2
    size = (first.boxes[:, 2:] - first.boxes[:, :2]).amax(1).clamp(5, SIDE)
    span = size[:, None] * WINDOW / GLANCE  # side of the window in the picture's pixels
    line = (torch.arange(WINDOW, device=span.device) + 0.5) / WINDOW - 0.5
    across, down = ((middles[:, axis, None] + span * line) / SIDE * 2 - 1 for axis in (0, 1))
    shape = (-1, WINDOW, WINDOW)
    places = torch.stack((across[:, None].expand(shape), down[:, :, None].expand(shape)), -1)
    seen = F.grid_sample(x.float(), places, padding_mode="border", align_corners=False)
    found = network(seen.to(next(network.parameters()).dtype))
    scores, boxes = found.scores[..., 0, 0].float(), found.boxes[..., 0, 0].float()
    corner = (middles - span / 2).repeat(1, 2)
    moved = corner + boxes * span
    return Located(scores.argmax(1), moved, moved[:, None])
