"""Exercises: write both objectives, a step of gradient ascent, and the octaves."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .ascent import energy


def of_features(draw: Draw) -> Iterator[Try]:
    yield Try("one channel", draw(1, 1, 1, 2))
    yield Try("3 channels", draw(2, 3, 2, 2))


def of_guides(draw: Draw) -> Iterator[Try]:
    yield Try("a guide of one position", draw(1, 2, 1, 2), draw(1, 2, 1, 1))
    yield Try("a guide of 4 positions", draw(2, 3, 2, 3), draw(1, 3, 2, 2))


def of_steps(draw: Draw) -> Iterator[Try]:
    yield Try("without a shift", draw.between(0.3, 0.7, 1, 3, 1, 2), weighed, size=0.1)
    yield Try("shifted by (1, 2)", draw.between(0.3, 0.7, 2, 3, 3, 4), weighed, size=0.1, shift=(1, 2))
    yield Try("clamped to [0, 1]", draw.between(0, 1, 1, 3, 2, 2), weighed, size=0.5)


def weighed(images: torch.Tensor) -> torch.Tensor:
    """An objective that weights positions differently."""
    places = torch.arange(images[0, 0].numel()).view(images.shape[2:])
    return ((images - 0.2).square() * (1 + places)).mean((1, 2, 3))


def of_dreams(draw: Draw) -> Iterator[Try]:
    for octaves, side in ((1, 3), (2, 4)):
        generator = torch.Generator().manual_seed(octaves)
        settings = {"octaves": octaves, "steps": 2, "size": 0.05, "jitter": 1}
        images = draw.between(0.2, 0.8, 1, 3, side, side)
        yield Try(f"{octaves} octave{'s' * (octaves - 1)}", images, energy, generator=generator, **settings)


EXERCISES = (
    Exercise(
        name="energy",
        of="ascent.energy",
        task="Compute the objective of an unguided dream, for each image.",
        hints=("Take the mean of the squared activations of each image.",),
        tries=of_features,
    ),
    Exercise(
        name="likeness",
        of="ascent.likeness",
        task="Compute the objective of a dream that is guided by another image's features.",
        hints=(
            "Take the dot product of every position with every position of the guide, over the channels.",
            "Take the maximum over the guide's positions, then the mean over the image's.",
        ),
        tries=of_guides,
    ),
    Exercise(
        name="step",
        of="ascent.step",
        task="Take a step of gradient ascent on the rolled image, with a size that does not depend on the "
        "gradient's norm.",
        hints=(
            "Roll, take the gradient, step, and roll back.",
            "Divide the gradient by the mean of its absolute values in each image, and multiply it by size.",
            "Clamp pixels to [0, 1]. Do not change the given images in place.",
        ),
        tries=of_steps,
        gradients=False,
    ),
    Exercise(
        name="octaves",
        of="ascent.dream",
        task="Dream on the smallest size first, and carry the added detail over to the next size.",
        hints=(
            "To get the next smaller size, divide both sides by the scale, round, and resize.",
            "detail is the dream minus the plain image. Resize it, and add it to the next plain image.",
            "Before each step, sample both shifts in one call, from -jitter to jitter.",
        ),
        tries=of_dreams,
        gradients=False,
    ),
)
