"""Generates images of 16 × 16 with labelled pixels: the digits 0 to 4 on photographs."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from readtrack.data import scenes
from readtrack.plugin import Run

CLASSES = 6  # the background and the digits 0 to 4
SIDE = 16
BRIGHTNESS = 0.3  # approximate mean of all pixels


class Labelled(NamedTuple):
    x: Float[Tensor, "count 3 side side"]
    y: Int64[Tensor, "count side side"]  # 0 for the background, else digit + 1


def labelled(run: Run, part: scenes.Part, count: int, *, fragments: int = 0) -> Labelled:
    """Scenes of level `photo` at 16 × 16 with the digits 0 to 4, and the digits' masks.

    fragments  number of half digits in each scene, which are labelled as background
    """
    changes = {"size": SIDE, "digit": (7, 11), "classes": CLASSES - 1, "fragments": (fragments, fragments)}
    drawn = scenes.draw(count, run.data_seed(part), part, "photo", **changes)
    return Labelled((drawn.images - BRIGHTNESS).to(run.device, run.dtype), drawn.classes().to(run.device))


COLOURS = ((0, 0, 0), (0.9, 0.2, 0.2), (0.2, 0.8, 0.3), (0.3, 0.5, 1.0), (0.95, 0.9, 0.2), (0.9, 0.5, 0.9))


def coloured(classes: Int64[Tensor, "count 16 16"]) -> Float[Tensor, "count 3 16 16"]:
    """An image with one colour per class."""
    return torch.tensor(COLOURS)[classes.cpu()].permute(0, 3, 1, 2)
