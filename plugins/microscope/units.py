"""Images of what a unit responds to: an input optimised for it, and the dataset's strongest examples.

A unit is a feature map of the `PairNet` that several plugins inspect. Its activity is the mean of the feature
map before the ReLU, so units with zero output also have a gradient. The units of "classes" are the logits.

Dimensions: units, n (images), side.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from ..deepdream import step
from ..saliency.network import BRIGHTNESS, PairNet

Images = Float[Tensor, "n 3 side side"]
CUTS = {
    "layer 1": 1,
    "layer 2": 4,
    "layer 3": 7,
    "layer 4": 9,
}  # number of modules up to the layer, without its ReLU
SEEN = {"layer 1": 5, "layer 2": 10, "layer 3": 20, "layer 4": 20}  # receptive field, at most an image's side


def responses(network: PairNet, layer: str) -> Callable[[Images], Float[Tensor, "n units"]]:
    """A function from images to the activities of a layer's units, or for "classes" to the logits."""
    if layer == "classes":
        return network
    first: nn.Sequential = network.layers[: CUTS[layer]]
    return lambda images: first(images - BRIGHTNESS).mean((2, 3))


def optimised(
    activity: Callable[[Tensor], Tensor],
    units: Int64[Tensor, " n"],
    generator: Generator,
    *,
    side: int,
    steps: int,
    dtype: torch.dtype = torch.float32,
    size: float = 0.02,
    jitter: int = 2,
) -> Images:
    """Images in [0, 1], each optimised from grey noise to raise the activity of its own unit.

    size    mean change of a pixel per step; it decays to a tenth
    jitter  before each step, images are shifted by up to `jitter` rows and columns
    """
    images = (BRIGHTNESS + 0.05 * torch.randn(len(units), 3, side, side, generator=generator)).clamp(0, 1)
    images = images.to(units.device, dtype)
    for count in range(steps):
        down, right = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
        images = step(
            images,
            lambda shown: activity(shown).gather(1, units[:, None])[:, 0],
            size=size * (1 - 0.9 * count / steps),
            shift=(down, right),
        )
    return images


class Strongest(NamedTuple):
    patches: Float[Tensor, "units best 3 seen seen"]
    activity: Float[Tensor, " units"]  # in the strongest image


def strongest(network: PairNet, layer: str, images: Images, *, best: int = 4) -> Strongest:
    """For each unit, patches of the images in which it is most active, around its strongest activation."""
    maps = network.layers[: CUTS[layer]](images - BRIGHTNESS)
    activity, places = maps.mean((2, 3)), maps.flatten(2).argmax(2)
    rows = activity.topk(best, 0).indices.T
    side, seen, columns = images.shape[-1], SEEN[layer], maps.shape[3]
    stride, patches = side // columns, []
    for unit, chosen in enumerate(rows.tolist()):
        for row in chosen:
            y, x = divmod(int(places[row, unit]), columns)
            top, left = (min(max(at * stride + stride // 2 - seen // 2, 0), side - seen) for at in (y, x))
            patches.append(images[row, :, top : top + seen, left : left + seen])
    return Strongest(torch.stack(patches).unflatten(0, (-1, best)), activity.amax(0))
