"""Times encoding the augmented data: both modalities, and each modality with the other one zeroed."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import MultimodalAutoencoder

Weights = Mapping[str, Tensor]
NAMES = ("image", "sound")


def codes(weights: Weights, image: Tensor, sound: Tensor) -> Tensor:
    hidden = [
        F.linear(x, weights[f"encoders.{name}.weight"], weights[f"encoders.{name}.bias"]).relu()
        for name, x in zip(NAMES, (image, sound), strict=True)
    ]
    return F.linear(torch.cat(hidden, 1), weights["shared.weight"], weights["shared.bias"]).tanh()


def three_passes(weights: Weights, image: Tensor, sound: Tensor) -> Tensor:
    """Run the network three times, with zeros for the missing modality."""
    zeroed = [torch.zeros_like(x) for x in (image, sound)]
    passes = ((image, sound), (image, zeroed[1]), (zeroed[0], sound))
    return torch.cat([codes(weights, *inputs) for inputs in passes])


def one_batch(weights: Weights, image: Tensor, sound: Tensor) -> Tensor:
    """Run the network once on the tripled data of section 3."""
    images = torch.cat((image, image, torch.zeros_like(image)))
    return codes(weights, images, torch.cat((sound, torch.zeros_like(sound), sound)))


def encoded_once(network: MultimodalAutoencoder, image: Tensor, sound: Tensor) -> Tensor:
    return network.tripled({"image": image, "sound": sound})


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    image, sound, hidden, code = bench.pick(
        smoke=(3, 5, 4, 2), quick=(1024, 1024, 512, 128), full=(4096, 4096, 2048, 512)
    )
    sizes = {"image": image, "sound": sound}
    make = partial(MultimodalAutoencoder, sizes, {}, hidden=hidden, code=code)
    for rows in bench.pick(smoke=(5,), quick=(64, 256), full=(256, 4096)):
        flops = 2 * rows * ((image + sound) * hidden + 3 * 2 * hidden * code)
        moved = (image + sound) * (hidden + rows) + 2 * hidden * code + 3 * rows * code
        yield Case.of_module(
            make,
            name="codes of the augmented data",
            axes={"pairs": rows},
            inputs=lambda generator, rows=rows: tuple(
                torch.randn(rows, size, generator=generator) for size in sizes.values()
            ),
            variants=(
                Variant(name="three passes", role="naive", call=three_passes),
                Variant(name="one batch of three kinds", role="strong", call=one_batch),
                Variant.of_module(make, encoded_once, name="each modality encoded once", role="paper"),
            ),
            cost=Cost.products(flops, moved * bench.dtype.itemsize),
        )
