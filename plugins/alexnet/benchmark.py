"""Times local response normalisation, the grouped convolution in two columns, and the whole network."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import AlexNet, neurons, response_norm


def map_by_map(a: Tensor) -> Tensor:
    """Computes section 3.3 as written, one map after another."""
    maps = []
    for i in range(a.shape[1]):
        near = a[:, max(0, i - 2) : i + 3]
        maps.append(a[:, i] / (2 + 1e-4 * near.square().sum(1)) ** 0.75)
    return torch.stack(maps, 1)


def torchs(a: Tensor) -> Tensor:
    wide = a.float() if a.dtype.itemsize < 4 else a  # on a CPU, torch does not support half precision here
    return F.local_response_norm(wide, 5, alpha=5e-4, beta=0.75, k=2.0).to(a.dtype)  # torch divides α by n


def norm_case(shape: tuple[int, ...], itemsize: int) -> Case:
    values = torch.Size(shape).numel()
    return Case(
        name="response normalisation",
        axes={"maps": shape[1], "shape": " × ".join(map(str, shape))},
        # The inputs are as large as activations of raw pixels, because for smaller inputs k dominates the sum
        # of squares.
        inputs=lambda g: (torch.randn(shape, generator=g) * 30,),
        variants=(
            Variant(name="map by map", role="naive", call=map_by_map),
            Variant(name="torch's", role="strong", call=torchs),
            Variant(name="shifted sums, two roots", role="paper", call=response_norm),
        ),
        cost=Cost.elementwise(values, itemsize=itemsize, flops=11, backward=14),
    )


def columns_apart(x: Tensor, weight: Tensor) -> Tensor:
    """Computes two convolutions, one for each half of the channels."""
    halves = zip(x.chunk(2, 1), weight.chunk(2), strict=True)
    return torch.cat([F.conv2d(half, part, padding=2) for half, part in halves], 1)


def one_convolution(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=2, groups=2)


def with_zeros(x: Tensor, weight: Tensor) -> Tensor:
    """Computes one dense convolution with zero weights between the columns, at twice the operations."""
    upper, lower = weight.chunk(2)
    full = torch.cat(
        (F.pad(upper, (0, 0, 0, 0, 0, upper.shape[1])), F.pad(lower, (0, 0, 0, 0, lower.shape[1], 0)))
    )
    return F.conv2d(x, full, padding=2)


def column_case(batch: int, side: int, inputs: int, outputs: int, itemsize: int) -> Case:
    weights = outputs * inputs // 2 * 25
    moved = batch * side**2 * (inputs + outputs) + weights
    return Case(
        name="two columns",
        axes={"maps": inputs, "batch": batch, "side": side},
        inputs=lambda g: (
            torch.randn(batch, inputs, side, side, generator=g),
            torch.randn(outputs, inputs // 2, 5, 5, generator=g) / (inputs * 12) ** 0.5,
        ),
        variants=(
            Variant(name="one column, zeros between", role="naive", call=with_zeros),
            Variant(name="two convolutions", role="strong", call=columns_apart),
            Variant(name="one convolution of two groups", role="paper", call=one_convolution),
        ),
        cost=Cost.products(2 * batch * side**2 * weights, moved * itemsize),
    )


def image_by_image(network: AlexNet, images: Tensor) -> Tensor:
    return torch.cat([network(image) for image in images.split(1)])


def with_torchs_norm(network: AlexNet, images: Tensor) -> Tensor:
    """The network with torch's response normalisation instead of this folder's."""
    x = network.pool(torchs(network.conv1(images).relu_()))
    x = network.pool(torchs(network.conv2(x).relu_()))
    x = network.conv4(network.conv3(x).relu_()).relu_()
    x = network.pool(network.conv5(x).relu_()).flatten(1)
    return network.scores(network.hidden2(network.hidden1(x).relu_()).relu_())


def image_case(
    batch: int, hidden: int, classes: int, widths: tuple[int, ...], side: int, bench: Bench
) -> Case:
    make = partial(AlexNet, widths=widths, hidden=hidden, classes=classes, side=side, dropout=0.0)
    with torch.device("meta"):
        network = make()
    layers = [layer.weight for layer in network.children() if hasattr(layer, "weight")]
    places = [count // len(weight) for count, weight in zip(neurons(network, side), layers, strict=True)]
    products = sum(weight.numel() * count for weight, count in zip(layers, places, strict=True))
    weights = sum(weight.numel() for weight in network.parameters())
    return Case.of_module(
        make,
        name="images",
        axes={"images": batch, "side": side},
        inputs=lambda g: (torch.randn(batch, 3, side, side, generator=g),),
        variants=(
            Variant.of_module(make, image_by_image, name="image by image", role="naive"),
            Variant.of_module(make, with_torchs_norm, name="torch's normalisation", role="strong"),
            Variant.of_module(make, name="AlexNet", role="paper"),
        ),
        cost={
            "forward": Cost(
                flops=2 * batch * products,
                bytes=(weights + batch * (3 * side**2 + classes)) * bench.dtype.itemsize,
            )
        },
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    itemsize = bench.dtype.itemsize
    for shape in bench.pick(
        smoke=((2, 7, 3, 5),), quick=((2, 96, 27, 27),), full=((32, 96, 55, 55), (32, 256, 27, 27))
    ):
        yield norm_case(shape, itemsize)
    for sizes in bench.pick(smoke=((2, 5, 4, 6),), quick=((1, 27, 96, 256),), full=((32, 27, 96, 256),)):
        yield column_case(*sizes, itemsize)
    figure_2 = (96, 256, 384, 384, 256)
    for batch, hidden, classes, widths, side in bench.pick(
        smoke=((2, 5, 3, (4, 6, 8, 8, 4), 67),),
        quick=((2, 512, 1000, figure_2, 227),),
        full=((1, 4096, 1000, figure_2, 227), (32, 4096, 1000, figure_2, 227)),
    ):
        yield image_case(batch, hidden, classes, widths, side, bench)
