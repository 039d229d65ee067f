"""Times a skip connection with its convolution, and the whole network on images."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import UNet, join


def patches(beside: Tensor, below: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Concatenate, unfold every patch into a column, and multiply matrices."""
    x = torch.cat((beside, below), 1)
    columns = weight.flatten(1) @ F.unfold(x, 3, padding=1) + bias[:, None]
    return columns.unflatten(2, x.shape[2:])


def split(beside: Tensor, below: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each half, and add the results. Nothing is concatenated, but the result is written twice."""
    halves = weight.split((beside.shape[1], below.shape[1]), 1)
    return F.conv2d(beside, halves[0], bias, padding=1) + F.conv2d(below, halves[1], padding=1)


def joined(beside: Tensor, below: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(join(beside, below), weight, bias, padding=1)


def image_by_image(network: UNet, images: Tensor) -> Tensor:
    return torch.cat([network(image) for image in images.split(1)])


def without_stacks(network: UNet, images: Tensor) -> Tensor:
    """The network with the first convolution after each skip connection split, so nothing is concatenated."""
    left, x = [], images
    for level, pair in enumerate(network.down):
        x = pair(x if level == 0 else network.pool(x))
        left.append(x)
    for up, pair, beside in zip(network.ups, network.up_pairs, reversed(left[:-1]), strict=True):
        first, *rest = pair
        x = split(beside, up(x), first.weight, first.bias)
        for layer in rest:
            x = layer(x)
    return network.score(x)


def make() -> UNet:
    return UNet(widths=(16, 32, 64), padding=1, dropout=0.0)


def work(network: UNet) -> float:
    """Multiply-adds per pixel of an image."""
    total = float(network.score.weight.numel())
    for level, pair in enumerate(network.down):
        total += sum(w.numel() for w in pair.parameters() if w.ndim > 1) / 4**level
    for level, (up, pair) in enumerate(zip(network.ups, network.up_pairs, strict=True)):
        height = len(network.ups) - 1 - level
        total += up.weight.numel() / 4 ** (height + 1)
        total += sum(w.numel() for w in pair.parameters() if w.ndim > 1) / 4**height
    return total


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for batch, maps, side in bench.pick(
        smoke=((2, 3, 5),), quick=((1, 64, 56),), full=((1, 64, 392), (1, 512, 56))
    ):
        weights, values = 18 * maps**2, batch * side**2 * maps
        yield Case(
            name="join",
            axes={"maps": maps, "side": side, "batch": batch},
            inputs=lambda g, shape=(batch, maps, side, side), maps=maps: (
                torch.randn(shape, generator=g),
                torch.randn(shape, generator=g),
                torch.randn(maps, 2 * maps, 3, 3, generator=g) / (18 * maps) ** 0.5,
                torch.randn(maps, generator=g),
            ),
            variants=(
                Variant(name="patches", role="naive", call=patches),
                Variant(name="two convolutions, added", role="strong", call=split),
                Variant(name="joined, one convolution", role="paper", call=joined),
            ),
            cost=Cost.products(2 * batch * side**2 * weights, (3 * values + weights) * bench.dtype.itemsize),
        )
    with torch.device("meta"):
        a_pixel = 2 * work(make())
    for batch, side in bench.pick(smoke=((2, 8),), quick=((4, 64),), full=((1, 256), (8, 128))):
        pixels = batch * side**2
        yield Case.of_module(
            make,
            name="images",
            axes={"side": side, "images": batch},
            inputs=lambda g, shape=(batch, 1, side, side): (torch.randn(shape, generator=g),),
            variants=(
                Variant.of_module(make, image_by_image, name="image by image", role="naive"),
                Variant.of_module(make, without_stacks, name="joins as two convolutions", role="strong"),
                Variant.of_module(make, name="as written", role="paper"),
            ),
            cost={"forward": Cost(flops=pixels * a_pixel, bytes=3 * pixels * bench.dtype.itemsize)},
        )
