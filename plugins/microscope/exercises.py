"""Exercises: optimise an input for a unit, and find the dataset's strongest examples."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from ..saliency.network import PairNet


def of_units(draw: Draw) -> Iterator[Try]:
    for count, steps in ((1, 1), (2, 3)):
        generator = torch.Generator().manual_seed(steps)
        named = {"side": 3, "steps": steps, "dtype": torch.float64}
        yield Try(f"{steps} step{'s' * (steps > 1)}", colours, torch.arange(count), generator, **named)


def colours(images: torch.Tensor) -> torch.Tensor:
    """Three units, one per colour channel, with a different weight for each position."""
    places = torch.arange(9.0, dtype=images.dtype).view(3, 3)
    return (images.square() * places).mean((2, 3))


def of_images(draw: Draw) -> Iterator[Try]:
    network = PairNet()
    yield Try("the best", network, "layer 1", draw.between(0, 1, 2, 3, 8, 8), best=1)
    yield Try("the best 2, layer 2", network, "layer 2", draw.between(0, 1, 3, 3, 14, 14), best=2)


EXERCISES = (
    Exercise(
        name="optimised input",
        of="units.optimised",
        task="Optimise one image per unit, from noise, to raise the unit's activity.",
        hints=(
            "Start from BRIGHTNESS plus 0.05 times normal noise, clamped to [0, 1].",
            (
                "deepdream's `step` takes one step of gradient ascent. The objective is the activity of each "
                "image's own unit."
            ),
            "Sample both shifts in one call. The step size decays linearly from `size` to a tenth of it.",
        ),
        tries=of_units,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="strongest examples",
        of="units.strongest",
        task="For each unit, cut patches around its strongest activation out of the images in which it is "
        "most active.",
        hints=(
            "The maps come from the first CUTS[layer] modules. An image's activity is the mean of its map.",
            "Use topk over the images. The position is the argmax of the flattened map.",
            "A position is stride pixels wide. Centre the patch on its middle and keep it inside the image.",
        ),
        tries=of_images,
        gradients=False,
    ),
)
