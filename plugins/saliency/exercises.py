"""Exercises: the gradient of a score, the saliency map, and the class picture."""

from collections.abc import Iterator

import torch
from torch import nn

from readtrack.plugin import Draw, Exercise, Try


def of_questions(draw: Draw) -> Iterator[Try]:
    yield Try("one image", network(2), draw.between(0, 1, 1, 3, 1, 2), torch.tensor([1]))
    yield Try("3 images", network(4), draw.between(0, 1, 3, 3, 2, 2), torch.tensor([0, 1, 1]))


def network(pixels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * pixels, 3), nn.Tanh(), nn.Linear(3, 2))


def of_classes(draw: Draw) -> Iterator[Try]:
    for steps in (1, 3):
        start = draw(2, 3, 1, 2)
        yield Try(
            f"{steps} step{'s' * (steps > 1)}",
            network(2),
            start,
            torch.tensor([0, 1]),
            steps=steps,
            rate=0.3,
            decay=0.5,
        )


EXERCISES = (
    Exercise(
        name="gradient",
        of="maps.class_gradient",
        task="Compute the derivative of each image's class score with respect to its pixels.",
        hints=(
            "Make a detached copy of the images, and gather the scores of their classes.",
            "The sum of the scores has the same gradient, because images do not affect each other's scores.",
        ),
        tries=of_questions,
        gradients=False,
    ),
    Exercise(
        name="saliency",
        of="maps.saliency",
        task="Section 3.1: reduce the derivatives with respect to a pixel's colours to one number per pixel.",
        hints=("Take the largest absolute value of the three.",),
        tries=of_questions,
        gradients=False,
    ),
    Exercise(
        name="class model",
        of="maps.class_model",
        task="Equation 1: maximise a class score with an L2 penalty, with gradient steps of fixed length.",
        hints=(
            "The network's input is mean + drawn. The penalty is decay times the mean square of drawn.",
            "Divide each image's gradient by its norm over all its pixels, and take a step of length `rate`.",
            "Add the mean to the returned images.",
        ),
        tries=of_classes,
        gradients=False,
    ),
)
