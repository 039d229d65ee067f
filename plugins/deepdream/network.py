"""Implements a small network to dream with, and the patches that it is trained on."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .ascent import Features, Images

Layers = Sequence[tuple[Tensor, Tensor]]  # weight and bias of each convolution
ROWS, COLUMNS = 3, 8  # the grid of fields over the two photographs, side by side


def activity(images: Images, colors: Float[Tensor, "3 3"], layers: Layers) -> Features:
    """Activations of the last of `layers`, which are convolutions with ReLUs. Each layer after the first
    works at half the resolution of the previous layer.

    The first layer ignores flat surfaces (its filters' weights sum to zero) and weights colours by `colors`.
    The other layers normalise their input over the channels, in place of GoogLeNet's local response
    normalisation. Otherwise the ascent would only raise brightness and colour, which increases activations
    most.
    """
    x = images
    for index, (weight, bias) in enumerate(layers):
        if index == 0:
            weight = torch.einsum("oikl,ij->ojkl", weight - weight.mean((2, 3), keepdim=True), colors)
            x = F.pad(x, (2, 2, 2, 2), mode="reflect")
        else:
            x = normalise(F.avg_pool2d(x, 2))
        x = F.conv2d(x, weight, bias, padding=0 if index == 0 else 1).relu()
    return x


def normalise(features: Features) -> Features:
    return features * (features.square().mean(1, keepdim=True) + 0.01).rsqrt()


class Network(nn.Module):
    """A small network to dream with, in place of the notebook's GoogLeNet."""

    def __init__(self, colors: Float[Tensor, "3 3"], classes: int) -> None:
        super().__init__()
        self.register_buffer("colors", colors)
        widths = (3, 16, 32, 48, 64)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 5 if before == 3 else 3) for before, after in pairwise(widths)
        )
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.head = nn.Linear(widths[-1], classes)

    def features(self, images: Images, depth: int) -> Features:
        """The activations of layer `depth`, counted from 1."""
        return activity(images, self.colors, [(layer.weight, layer.bias) for layer in self.layers[:depth]])

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        return self.head(normalise(self.features(images, len(self.layers))).mean((2, 3)))


def colors_of(photographs: Images) -> Float[Tensor, "3 3"]:
    """The matrix square root of the colours' covariance, scaled to a norm of 3.

    Brightness gets the largest weight, and the contrast of green and magenta the smallest.
    """
    values, vectors = torch.linalg.eigh(photographs.transpose(0, 1).flatten(1).cov())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return 3 * root / root.norm()


def side_by_side(photographs: Images) -> Float[Tensor, "3 height _"]:
    return photographs.movedim(0, 2).flatten(2)


def strokes(digits: Float[Tensor, "digits 8 8"]) -> Float[Tensor, "digits 1 32 32"]:
    return F.interpolate(digits[:, None], scale_factor=4, mode="bicubic").clamp(0, 1)


def descend_silently(loss: Float[Tensor, ""], optimizer: torch.optim.Optimizer, step: int) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def learn(
    network: Network,
    wall: Float[Tensor, "3 height width"],
    ink: Float[Tensor, "digits 1 32 32"],
    labels: Int64[Tensor, " digits"],
    generator: torch.Generator,
    steps: int,
    taken: Iterable[int],
    descend: Callable[[Tensor, torch.optim.Optimizer, int], object] = descend_silently,
) -> None:
    """Train `network` for the steps in `taken`, out of the schedule's `steps`."""
    optimizer = torch.optim.Adam(network.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.006, steps)
    for step in taken:
        patches, target = lesson(wall, ink, labels, 32, generator)
        loss = F.cross_entropy(network(patches.to(network.colors)), target.to(network.colors.device))
        descend(loss, optimizer, step)
        rates.step()


def lesson(
    wall: Float[Tensor, "3 height width"],
    ink: Float[Tensor, "digits 1 32 32"],
    labels: Int64[Tensor, " digits"],
    count: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "count 3 24 24"], Int64[Tensor, " count"]]:
    """Random patches of the photographs in several sizes, rotated and with noise. Some have a digit on them.

    The target is the digit (0 to 9) if there is one, otherwise the field of the patch's centre (10 and up).
    """
    draw = partial(torch.rand, generator=generator)
    sides = torch.tensor([wall.shape[2], wall.shape[1]])
    extent = 20 * 3 ** draw(count, 1) / sides
    middle = (2 * draw(count, 2) - 1) * (1 - extent)
    grid = views(extent, middle, draw(count) - 0.5)
    patches = F.grid_sample(
        wall[None], grid.flatten(0, 1)[None], padding_mode="reflection", align_corners=False
    )
    patches = patches[0].unflatten(1, (count, 24)).transpose(0, 1)
    field = ((middle + 1) / 2 * torch.tensor([COLUMNS, ROWS])).long()
    target = 10 + field[:, 1] * COLUMNS + field[:, 0]

    zoom = 1 / (0.5 + 0.45 * draw(count, 1))
    grid = views(zoom.expand(-1, 2), (2 * draw(count, 2) - 1) * (zoom - 1), draw(count) - 0.5)
    which, has = torch.randint(len(ink), (count,), generator=generator), draw(count) < 0.3
    strokes = F.grid_sample(ink[which], grid, align_corners=False) * has[:, None, None, None]
    contrast = (patches.mean((1, 2, 3), keepdim=True) < 0.5).to(patches)  # white on dark, black on bright
    patches = patches.lerp(contrast.expand_as(patches), strokes.expand_as(patches))
    noise = torch.randn(patches.shape, generator=generator) * draw(count, 1, 1, 1)
    return patches + 0.1 * noise, torch.where(has, labels[which], target)


def views(
    extent: Float[Tensor, "count 2"], middle: Float[Tensor, "count 2"], angle: Float[Tensor, " count"]
) -> Float[Tensor, "count 24 24 2"]:
    """Sampling grids of squares in an image with sides from -1 to 1. `extent` is half a side's length."""
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2)
    matrix = torch.cat((extent[..., None] * turn, middle[..., None]), 2)
    return F.affine_grid(matrix, [len(matrix), 1, 24, 24], align_corners=False)
