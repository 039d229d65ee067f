"""Exercises: write the backward rule of a ReLU, and compute the logits of the all-convolutional network."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import AllConvNet


def of_signals(draw: Draw) -> Iterator[Try]:
    yield Try("one of each sign", torch.tensor([1.5, -0.5, 2.0, -1.0]), torch.tensor([1.0, 2.0, -1.0, -2.0]))
    yield Try("maps", draw(2, 3, 4, 4), draw(2, 3, 4, 4))


def of_images(draw: Draw) -> Iterator[Try]:
    yield Try("one position", AllConvNet("strided", classes=2, maps=2, dropout=False), draw(1, 3, 9, 9))
    yield Try("several rows and columns", AllConvNet(classes=3, maps=2, dropout=False), draw(2, 3, 20, 12))


EXERCISES = (
    Exercise(
        name="guided ReLU",
        of="model.guided",
        task="Compute the backward signal of a ReLU, given the ReLU's input.",
        hints=(
            "The gradient passes where the input is positive.",
            "A deconvnet passes positive signals. Combine both conditions.",
        ),
        tries=of_signals,
    ),
    Exercise(
        name="average of maps",
        of="model.AllConvNet.forward",
        task="Compute the logits of the images, without a fully connected layer.",
        hints=("The last layer has one map for each class.", "Average each map over its rows and columns."),
        tries=of_images,
    ),
)
