"""The networks that the Vision Transformer is compared with, and the networks of the breaks."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..alexnet.task import CLASSES, SIDE
from .model import Positions, ViT

SmallViT = partial(ViT, side=SIDE, patch=4, model=48, heads=4, layers=2, hidden=96, classes=CLASSES)


def convolutions(*layers: tuple[int, int, int]) -> list[nn.Module]:
    """3 × 3 convolutions (inputs, maps, stride), each with group normalisation and ReLU."""
    found: list[nn.Module] = []
    for inputs, maps, stride in layers:
        found += [nn.Conv2d(inputs, maps, 3, stride=stride, padding=1), nn.GroupNorm(2, maps), nn.ReLU()]
    return found


class ConvNet(nn.Sequential):
    """Six 3 × 3 convolutions with group normalisation, global average pooling, and a linear classifier."""

    def __init__(self, maps: tuple[int, int, int] = (8, 20, 30)) -> None:
        a, b, c = maps
        super().__init__(
            *convolutions((3, a, 1), (a, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(c, CLASSES),
        )


class Hybrid(nn.Sequential):
    """Section 3.1: a ViT on convolutional feature maps. Smaller MLPs offset the cost of the convolutions."""

    def __init__(self) -> None:
        maps = 20
        vit = SmallViT(side=SIDE // 4, patch=1, channels=maps, hidden=46)
        super().__init__(*convolutions((3, 8, 1), (8, maps, 2), (maps, maps, 2)), vit)


class PixelNet(nn.Sequential):
    """An MLP on all pixels, with the hidden size that gives the same number of multiply-adds as the ViT."""

    def __init__(self, hidden: int = 930) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * SIDE**2, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


class Misplaced(Positions):
    """Learned positions that are permuted among the patches (not the class token) in each call."""

    def forward(self, rows: int, columns: int) -> Float[Tensor, "tokens model"]:
        first, others = super().forward(rows, columns).split((1, rows * columns))
        return torch.cat((first, others[torch.randperm(len(others), device=others.device)]))
