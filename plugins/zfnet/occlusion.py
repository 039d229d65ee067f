"""Occlusion: the network's scores when a grey square covers part of the image (section 4.2)."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Images = Float[Tensor, "n 3 height width"]
GREY = 0.3


def corners(height: int, width: int, side: int, stride: int) -> list[tuple[int, int]]:
    """The upper left corners of squares that cover the whole image."""
    return [
        (top, left)
        for top in range(0, height - side + 1, stride)
        for left in range(0, width - side + 1, stride)
    ]


def covered(
    image: Float[Tensor, "3 height width"], places: Sequence[tuple[int, int]], side: int
) -> Float[Tensor, "squares 3 height width"]:
    """A copy of the image for each place, with a grey square there."""
    images = image.repeat(len(places), 1, 1, 1)
    for copy, (top, left) in zip(images, places, strict=True):
        copy[:, top : top + side, left : left + side] = GREY
    return images


def occluded(
    network: Callable[[Tensor], Tensor],
    images: Images,
    classes: Int64[Tensor, " n"],
    *,
    side: int = 5,
    stride: int = 1,
) -> Float[Tensor, "n rows columns"]:
    """The score of each image's class with the square at each position.

    side, stride  side of the square and distance between its positions, in pixels
    """
    height, width = images.shape[2:]
    places = corners(height, width, side, stride)
    rows = (height - side) // stride + 1
    maps = [
        network(covered(image, places, side))[:, label].view(rows, -1)
        for image, label in zip(images, classes.tolist(), strict=True)
    ]
    return torch.stack(maps)


def occlusion(
    network: Callable[[Tensor], Tensor],
    images: Images,
    classes: Int64[Tensor, " n"],
    *,
    side: int = 5,
    stride: int = 1,
) -> Float[Tensor, "n rows columns"]:
    """The decrease in each image's class score with the square at each position."""
    before = network(images).gather(1, classes[:, None])[:, :, None]
    return before - occluded(network, images, classes, side=side, stride=stride)
