"""Exercises: write Grad-CAM, its weighted sum, and the class activation map."""

from collections.abc import Iterator

import torch
from torch import nn

from readtrack.plugin import Draw, Exercise, Try


def of_questions(draw: Draw) -> Iterator[Try]:
    yield Try("one image", *network(1, 2, 4), draw(1, 1, 2, 2), torch.tensor([1]))
    yield Try("3 images", *network(2, 3, 6), draw(3, 2, 2, 3), torch.tensor([0, 1, 1]))


def network(channels: int, maps: int, places: int) -> tuple[nn.Module, nn.Module]:
    """The layers up to the last maps, and the head after them."""
    head = nn.Sequential(nn.Flatten(), nn.Linear(maps * places, 2), nn.Tanh(), nn.Linear(2, 2))
    return nn.Conv2d(channels, maps, 1), head


def of_maps(draw: Draw) -> Iterator[Try]:
    yield Try("one map", draw(1, 1, 2, 2), draw(1, 1))
    yield Try("3 maps", draw(2, 3, 2, 2), draw(2, 3))


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("one image", draw(1, 2, 2, 2), draw(3, 2), torch.tensor([2]))
    yield Try("3 images", draw(3, 3, 1, 2), draw(2, 3), torch.tensor([0, 1, 1]))


EXERCISES = (
    Exercise(
        name="Grad-CAM",
        of="maps.grad_cam",
        task="Equations 1 and 2: compute the map for each image's class.",
        hints=(
            "Detach the maps, make them a leaf, and apply the head to them.",
            "A map's weight is the gradient of the score with respect to the map, averaged over positions.",
        ),
        tries=of_questions,
        gradients=False,
    ),
    Exercise(
        name="weighted sum",
        of="maps.weighted",
        task="Equation 2: combine maps and their weights into one map.",
        hints=("Sum the weighted maps. A ReLU keeps the evidence for the class.",),
        tries=of_maps,
    ),
    Exercise(
        name="CAM",
        of="maps.cam",
        task="Compute the class activation map of a network that ends with average pooling and a linear "
        "layer.",
        hints=("The weights are the linear layer's row for the image's class.",),
        tries=of_layers,
    ),
)
