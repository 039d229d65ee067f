"""Times the overlap of run-length encoded masks, and the detector's forward pass."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl
from readtrack.scores import mask_iou

from .masks import compress, encode, overlap
from .model import Cells, Detector, centres

Runs = Int64[Tensor, "_ runs"]


def walked(a: Runs, b: Runs) -> Float[Tensor, "n m"]:
    """Compares one pair of masks at a time, by stepping through the runs of both."""
    found = [[walk(left, right) for right in b.tolist()] for left in a.tolist()]
    return torch.tensor(found, dtype=torch.float64, device=a.device)


def walk(left: list[int], right: list[int]) -> float:
    shared = union = 0
    at, rest = [0, 0], [left[0], right[0]]
    while True:
        step = min(rest)
        inside = at[0] % 2 + at[1] % 2
        shared += step * (inside == 2)
        union += step * (inside > 0)
        for side, runs in enumerate((left, right)):
            rest[side] -= step
            if rest[side] == 0:
                at[side] += 1
                if at[side] == len(runs):
                    return shared / max(union, 1)
                rest[side] = runs[at[side]]


def unpacked(a: Runs, b: Runs) -> Float[Tensor, "n m"]:
    """Unpacks the masks into pixels, and compares all pairs in one matrix multiplication."""
    return mask_iou(pixels(a), pixels(b))


def pixels(runs: Runs) -> Tensor:
    """Whether each pixel is inside, in column-major order: (n, 1, pixels)."""
    inside = (torch.arange(runs.shape[1], device=runs.device) % 2 == 1).repeat(len(runs))
    return inside.repeat_interleave(runs.flatten()).view(len(runs), 1, -1)


def packed(*masks: Runs) -> tuple[list[dict[str, Any]], ...]:
    """The masks in pycocotools' format, each as an image of one long column."""
    return tuple(
        [{"size": [sum(runs), 1], "counts": compress(runs).encode()} for runs in some.tolist()]
        for some in masks
    )


def pycocotools(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> Float[Tensor, "n m"]:
    from pycocotools import mask

    return torch.from_numpy(mask.iou(a, b, [0] * len(b)))


def ellipses(count: int, side: int, generator: torch.Generator) -> Runs:
    """Random ellipses of the same width, so all have the same number of runs. Heights and positions vary."""
    width = side // 4
    tall = 2 + torch.randint(side // 2, (count, 1), generator=generator)
    left, top = (
        torch.rand(2, count, 1, generator=generator) * (side - torch.stack((tall * 0 + width, tall)))
    ).long()
    line = torch.arange(side)
    x, y = (line - left - (width - 1) / 2) / (width / 2), (line - top - (tall - 1) / 2) / (tall / 2)
    masks = x.square()[:, None] + y.square()[:, :, None] < 1
    return torch.tensor([encode(mask) for mask in masks])


def make() -> Detector:
    return Detector(5).eval()


def image_by_image(network: Detector, images: Tensor) -> Cells:
    found = [network(image) for image in images.split(1)]
    return Cells(*(torch.cat(field) for field in zip(*found, strict=True)))


def folded(network: Detector, images: Tensor) -> Cells:
    """Folds each batch normalisation into its convolution in the forward pass."""
    maps = images - 0.5
    layers = list(network.features)
    for convolution, norm in zip(layers[::3], layers[1::3], strict=True):
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = convolution.weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
        maps = F.conv2d(maps, weight, bias, convolution.stride, convolution.padding).relu()
    scores, sides = network.score(maps).flatten(2).mT, network.sides(maps).flatten(2).mT
    middles = centres(*maps.shape[2:], network.stride).to(sides)
    away = network.stride * F.softplus(sides)
    return Cells(scores, torch.cat((middles - away[..., :2], middles + away[..., 2:]), -1))


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for found, objects, side in bench.pick(
        smoke=((3, 2, 16),), quick=((20, 10, 128),), full=((100, 20, 256), (100, 20, 640))
    ):
        runs = 2 * (side // 4) + 1
        yield Case(
            name="overlap of masks",
            axes={"side": side, "found": found, "objects": objects},
            inputs=lambda g, found=found, objects=objects, side=side: (
                ellipses(found, side, g),
                ellipses(objects, side, g),
            ),
            variants=(
                Variant(name="pair by pair", role="naive", call=walked),
                Variant(name="unpacked, a product of matrices", role="strong", call=unpacked),
                Variant(name="on run lengths, all pairs", role="paper", call=overlap),
                Variant(
                    name="pycocotools",
                    role="vendor",
                    call=pycocotools,
                    needs=bench.needs("pycocotools") if bench.device.type == "cpu" else "needs a CPU",
                    prepare=packed,
                ),
            ),
            # Two sorted lists are merged for each pair: one comparison and one addition per edge.
            cost={
                "forward": Cost(
                    flops=4 * found * objects * runs, bytes=8 * ((found + objects) * runs + found * objects)
                )
            },
        )
    with torch.device("meta"):
        weights = [m.weight for m in make().modules() if isinstance(m, nn.Conv2d)]
    # The first convolution runs on a quarter of the pixels, all others on a sixteenth.
    a_pixel = sum(w.numel() / (16 if i else 4) for i, w in enumerate(weights))
    for batch, side in bench.pick(smoke=((2, 16),), quick=((8, 64),), full=((1, 256), (32, 64))):
        pixels = batch * side**2
        yield Case.of_module(
            make,
            name="images",
            axes={"side": side, "images": batch},
            inputs=lambda g, shape=(batch, 3, side, side): (torch.rand(shape, generator=g),),
            variants=(
                Variant.of_module(make, image_by_image, name="image by image", role="naive"),
                Variant.of_module(make, folded, name="normalisation folded", role="strong"),
                Variant.of_module(make, name="as written", role="paper"),
            ),
            cost={"forward": Cost(flops=2 * pixels * a_pixel, bytes=4 * pixels * bench.dtype.itemsize)},
        )
