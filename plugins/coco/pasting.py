"""Makes scenes out of iconic pictures, by pasting shrunken digits from other pictures into them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from readtrack.scores import box_iou

from .dataset import Batch

TRIES = 12
SMALLEST = 0.5  # of a digit's side, after shrinking

Picture = Float[Tensor, "3 _height _width"]


def pasted(iconic: Batch, generator: Generator) -> Batch:
    """Half as many pictures with two digits each. Each picture of the first half gets two patches.

    The first patch is the digit of a picture of the second half. The second is half of the digit of any
    picture, and is not labelled.
    """
    count = len(iconic.images) // 2
    images = iconic.images[:count].clone()
    boxes, labels = (torch.stack((field[:count, 0], field[count : 2 * count, 0]), 1) for field in iconic[1:])
    for row, image in enumerate(images):
        boxes[row, 1] = paste(image, digit(iconic, row + count, generator), boxes[row, :1], generator)
        other = int(torch.randint(2 * count, (), generator=generator))
        paste(image, half(digit(iconic, other, generator), generator), boxes[row], generator)
    return Batch(images, boxes, labels)


def digit(iconic: Batch, row: int, generator: Generator) -> Picture:
    """The box of a picture's digit, shrunk by a random factor."""
    x1, y1, x2, y2 = iconic.boxes[row, 0].long().tolist()
    factor = SMALLEST + (1 - SMALLEST) * torch.rand((), generator=generator).item()
    size = [max(1, round(factor * side)) for side in (y2 - y1, x2 - x1)]
    return F.interpolate(iconic.images[[row], :, y1:y2, x1:x2], size, mode="bilinear", antialias=True)[0]


def half(patch: Picture, generator: Generator) -> Picture:
    """The upper, lower, left or right half of a patch."""
    choice = int(torch.randint(4, (), generator=generator))
    return patch.tensor_split(2, 1 + choice // 2)[choice % 2]


def paste(
    image: Picture, patch: Picture, taken: Float[Tensor, "boxes 4"], generator: Generator
) -> Float[Tensor, "4"]:
    """Paste a patch into an image, in place, and return its box.

    Of twelve random positions, it takes the one that overlaps the boxes in `taken` least.
    """
    sides = torch.tensor([patch.shape[2], patch.shape[1]])
    room = torch.tensor([image.shape[2], image.shape[1]]) - sides
    corners = (torch.rand(TRIES, 2, generator=generator) * (room + 1)).long()
    tries = torch.cat((corners, corners + sides), 1)
    best = tries[box_iou(tries.to(taken), taken).amax(1).argmin()]
    x1, y1, x2, y2 = best.tolist()
    image[:, y1:y2, x1:x2] = patch
    return best.to(taken)
