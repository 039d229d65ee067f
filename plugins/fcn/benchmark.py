"""Times bilinear upsampling of logits, and segmentation of whole images."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import SmallFCN, bilinear, upsample


def inner(x: Tensor, factor: int) -> Tensor:
    """Crops the border away. There, `interpolate` repeats values, and a transposed convolution adds zeros."""
    return x[:, :, factor:-factor, factor:-factor]


def all_pairs(x: Tensor, *, factor: int) -> Tensor:
    """A transposed convolution between all pairs of classes, as in learned layers. Most weights are zero."""
    weight = torch.zeros(x.shape[1], x.shape[1], 2 * factor, 2 * factor, dtype=x.dtype, device=x.device)
    weight.diagonal(dim1=0, dim2=1).copy_(bilinear(factor)[:, :, None])
    return inner(F.conv_transpose2d(x, weight, stride=factor, padding=factor // 2), factor)


def interpolated(x: Tensor, *, factor: int) -> Tensor:
    return inner(F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False), factor)


def of_each_class(x: Tensor, *, factor: int) -> Tensor:
    return inner(upsample(x, factor), factor)


def make() -> SmallFCN:
    return SmallFCN(classes=6)


def image_by_image(network: SmallFCN, images: Tensor) -> Tensor:
    return torch.cat([network(image) for image in images.split(1)])


def pooled_first(network: SmallFCN, images: Tensor) -> Tensor:
    """Applies max pooling before the ReLU, which then has a quarter of the positions. (The two commute.)"""
    x = network.pool(network.stage1[0](images)).relu()
    x = network.pool(network.stage2[0](x)).relu()
    return upsample(network.score3(network.stage3(x)), 4)


def work(side: int) -> int:
    """Multiply-adds of the small network's convolutions for one image."""
    with torch.device("meta"):
        network = make()
    places = {network.stage1: side**2, network.stage2: side**2 // 4, network.stage3: side**2 // 16}
    return sum(
        count * sum(w.numel() for w in stage.parameters() if w.ndim > 1) for stage, count in places.items()
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    itemsize = bench.dtype.itemsize
    for batch, classes, side, factor in bench.pick(
        smoke=((2, 3, 4, 2),), quick=((1, 21, 28, 8),), full=((1, 21, 16, 32), (4, 21, 64, 8))
    ):
        values = batch * classes * side**2
        yield Case(
            name="upsampling",
            axes={"factor": factor, "side": side, "batch": batch},
            inputs=lambda g, shape=(batch, classes, side, side): (torch.randn(shape, generator=g),),
            variants=(
                Variant(name="all pairs of classes", role="naive", call=partial(all_pairs, factor=factor)),
                Variant(name="torch interpolate", role="strong", call=partial(interpolated, factor=factor)),
                Variant(
                    name="each class by itself", role="paper", call=partial(of_each_class, factor=factor)
                ),
            ),
            cost=Cost.products(8 * values * factor**2, values * (1 + factor**2) * itemsize),
        )
    for batch, side in bench.pick(smoke=((2, 8),), quick=((8, 64),), full=((1, 256), (32, 64))):
        pixels = batch * side**2
        yield Case.of_module(
            make,
            name="images",
            axes={"side": side, "images": batch},
            inputs=lambda g, shape=(batch, 3, side, side): (torch.randn(shape, generator=g),),
            variants=(
                Variant.of_module(make, image_by_image, name="image by image", role="naive"),
                Variant.of_module(make, pooled_first, name="pooled before the ReLU", role="strong"),
                Variant.of_module(make, name="as written", role="paper"),
            ),
            cost={"forward": Cost(flops=2 * batch * work(side), bytes=9 * pixels * itemsize)},
        )
