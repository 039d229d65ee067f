"""Exercises: the skip connection and the border weights."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try


def of_paths(draw: Draw) -> Iterator[Try]:
    yield Try("equal sizes", draw(1, 2, 3, 3), draw(1, 1, 3, 3))
    yield Try("the contracting path is larger", draw(2, 2, 8, 9), draw(2, 3, 4, 5))


def of_objects(draw: Draw) -> Iterator[Try]:
    two = torch.zeros(2, 5, 7, dtype=torch.bool)
    two[0, 1:4, 1:3], two[1, 2:5, 4:6] = True, True
    three = torch.cat((two, torch.zeros(1, 5, 7, dtype=torch.bool)))
    three[2, 0, 6] = True
    yield Try("one object", two[:1])
    yield Try("two objects", two, w0=5.0, sigma=2.0)
    yield Try("three objects", three)


EXERCISES = (
    Exercise(
        name="join",
        of="model.join",
        task="Concatenate the maps of the contracting path with the maps from below.",
        hints=(
            "Unpadded convolutions leave smaller maps below, so centre-crop those of the contracting path.",
            "The maps of the contracting path come first.",
        ),
        tries=of_paths,
    ),
    Exercise(
        name="border weights",
        of="model.border_weights",
        task="Compute the weights of equation 2, which are large between objects that nearly touch.",
        hints=(
            "Measure each pixel's distance to every object, and take the two smallest.",
            "The negative exponent is the square of their sum, divided by 2 σ².",
            "Inside objects, and if there are fewer than two objects, the weight is 1.",
        ),
        tries=of_objects,
    ),
)
