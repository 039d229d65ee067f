"""Exercises: write the rule for a ReLU, the backward pass, and the occluded images."""

from collections.abc import Iterator

import torch
from torch import nn

from readtrack.plugin import Draw, Exercise, Try

from .projection import deconvnet, gradient


def of_signals(draw: Draw) -> Iterator[Try]:
    yield Try("one of each sign", torch.tensor([1.5, -0.5, 2.0, -1.0]), torch.tensor([1.0, 2.0, -1.0, -2.0]))
    yield Try("maps", draw(2, 3, 4, 4), draw(2, 3, 4, 4))


def ones(maps: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(maps)


def of_layers(draw: Draw) -> Iterator[Try]:
    one = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))
    two = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    yield Try("a convolution", one, draw(1, 1, 4, 4), deconvnet, ones)
    yield Try("with a ReLU and pooling", two, draw(1, 1, 4, 6), deconvnet, ones)
    yield Try("by the gradient's rule", two, draw(2, 1, 4, 4), gradient, ones)
    yield Try("without switches", two, draw(1, 1, 4, 4), deconvnet, ones, switches=False)


def of_places(draw: Draw) -> Iterator[Try]:
    yield Try("one place", draw(3, 4, 4), [(1, 2)], 2)
    yield Try("two places", draw(3, 5, 4), [(0, 0), (2, 1)], 3)


EXERCISES = (
    Exercise(
        name="deconvnet ReLU",
        of="projection.deconvnet",
        task="Return the signal that passes back through a ReLU, given the signal and the ReLU's input.",
        hints=("A deconvnet applies the ReLU to the signal itself.",),
        tries=of_signals,
    ),
    Exercise(
        name="covered images",
        of="occlusion.covered",
        task="Make a copy of the image for each place, with a grey square there.",
        hints=(
            "A place is the upper left corner of the square, (top, left).",
            "Set all three colours to GREY.",
        ),
        tries=of_places,
    ),
    Exercise(
        name="backward pass",
        of="projection.pull_back",
        task="Go forward and store inputs and switches, then go backward through all layers.",
        hints=(
            "A convolution's backward pass is the transposed convolution with the same weight.",
            "max_pool2d returns the switches with return_indices, and max_unpool2d takes them.",
            "At a ReLU, call the rule with the signal and the ReLU's input.",
        ),
        tries=of_layers,
    ),
)
