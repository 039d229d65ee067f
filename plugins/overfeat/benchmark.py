"""Times all windows of an image: one by one, in one batch, one pooling offset at a time, and in one pass."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import SMALL, OverFeat, Views, at_each_offset
from .task import CLASSES, WINDOW


def make() -> OverFeat:
    """The small network without batch normalisation, which is folded into the convolutions at inference."""
    heads = {"hidden": (96, 64), "regress": (96, 64)}
    return OverFeat(SMALL, side=3, classes=CLASSES, dropout=0.0, **heads)


def cut(network: OverFeat, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """All windows of all images, and the numbers of rows and columns of windows per image."""
    found = images.unfold(2, WINDOW, network.stride).unfold(3, WINDOW, network.stride)
    return found.permute(0, 2, 3, 1, 4, 5).flatten(0, 2), (found.shape[2], found.shape[3])


def put_together(views: Views, batch: int, size: tuple[int, int]) -> Views:
    return Views(*(one.view(batch, *size, -1).permute(0, 3, 1, 2) for one in views))


def in_a_loop(network: OverFeat, images: Tensor) -> Views:
    found, size = cut(network, images)
    each = [network(window[None]) for window in found]
    return put_together(Views(*(torch.cat(one) for one in zip(*each, strict=True))), len(images), size)


def in_one_batch(network: OverFeat, images: Tensor) -> Views:
    found, size = cut(network, images)
    return put_together(network(found), len(images), size)


def work(network: OverFeat, batch: int, side: int) -> float:
    """Operations in the convolutions if each is computed once. A multiply-add counts as two operations."""
    total, flops = side, 0.0
    heads = (network.classifier, network.regressor)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            total = (total - layer.kernel_size[0]) // layer.stride[0] + 1
            flops += 2 * total**2 * layer.weight.numel()
        elif isinstance(layer, nn.MaxPool2d):
            total //= layer.kernel_size
    pool = network.offsets.kernel_size
    total -= pool - 1 + pool * (heads[0][0].kernel_size[0] - 1)
    dense = sum(w.numel() for layers in heads for w in layers.parameters() if w.ndim > 1)
    return batch * (flops + 2 * total**2 * dense)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    with torch.device("meta"):
        network = make()
    weights = sum(w.numel() for w in network.parameters())
    for batch, side in bench.pick(smoke=((2, 28),), quick=((1, 32), (1, 48)), full=((1, 48), (8, 96))):
        cost = Cost.products(
            work(network, batch, side), (batch * 3 * side**2 + weights) * bench.dtype.itemsize
        )
        shape = (batch, 3, side, side)
        yield Case.of_module(
            make,
            name="every window",
            axes={"side": side, "batch": batch},
            inputs=lambda g, shape=shape: (torch.rand(shape, generator=g),),
            variants=(
                Variant.of_module(make, in_a_loop, name="windows in a loop", role="naive"),
                Variant.of_module(make, in_one_batch, name="windows in one batch", role="strong"),
                Variant.of_module(make, at_each_offset, name="each offset by itself", role="strong"),
                Variant.of_module(make, name="the whole image", role="paper"),
            ),
            cost={"forward": cost["forward"]},
        )
