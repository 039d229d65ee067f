"""Times a stage of two convolutions, the classifier head at every position, and the whole network."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import TABLE_1, VGG, dense_head

# Column D with a quarter of the feature maps.
NARROW = " ".join(layer if layer == "M" else str(int(layer) // 4) for layer in TABLE_1["D"].split())


def of_patches(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Each convolution as a matrix multiplication of patches."""
    for weight, bias in ((w1, b1), (w2, b2)):
        columns = weight.flatten(1) @ F.unfold(x, 3, padding=1) + bias[:, None]
        x = columns.unflatten(2, x.shape[2:]).relu()
    return pooled(x)


def pooled(x: Tensor) -> Tensor:
    rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    return x[:, :, :rows, :columns].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))


def torchs(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    x = F.conv2d(x.contiguous(memory_format=torch.channels_last), w1, b1, padding=1).relu()
    return F.max_pool2d(F.conv2d(x, w2, b2, padding=1).relu(), 2)


def pooled_first(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Pool before the ReLU, which then has a quarter of the inputs but gives the same result."""
    x = F.conv2d(x.contiguous(memory_format=torch.channels_last), w1, b1, padding=1).relu_()
    return F.max_pool2d(F.conv2d(x, w2, b2, padding=1), 2).relu_()


def stage_case(batch: int, inputs: int, maps: int, side: int, itemsize: int) -> Case:
    weights = 9 * maps * (inputs + maps)
    moved = batch * side**2 * (inputs + maps / 4) + weights

    def inputs_of(g: torch.Generator) -> tuple[Tensor, ...]:
        return (
            torch.randn(batch, inputs, side, side, generator=g),
            torch.randn(maps, inputs, 3, 3, generator=g) / (9 * inputs) ** 0.5,
            # All values are far from 0, because close to 0 rounding decides the gradient of a ReLU.
            torch.randn(maps, generator=g).sign() * 10,
            torch.randn(maps, maps, 3, 3, generator=g) / (9 * maps) ** 0.5,
            torch.randn(maps, generator=g).sign() * 100,
        )

    return Case(
        name="stage",
        axes={"maps": maps, "side": side, "batch": batch},
        inputs=inputs_of,
        variants=(
            Variant(name="patches", role="naive", call=of_patches),
            Variant(name="torch's convolutions, channels last", role="strong", call=torchs),
            Variant(name="pooled before the ReLU", role="paper", call=pooled_first),
        ),
        cost={"forward": Cost(flops=2 * batch * side**2 * weights, bytes=moved * itemsize)},
    )


def window_by_window(maps: Tensor, *layers: Tensor, side: int) -> Tensor:
    rows = [
        torch.stack(
            [
                head(maps[:, :, i : i + side, j : j + side].flatten(1), *layers)
                for j in range(maps.shape[3] - side + 1)
            ],
            2,
        )
        for i in range(maps.shape[2] - side + 1)
    ]
    return torch.stack(rows, 2)


def all_windows(maps: Tensor, *layers: Tensor, side: int) -> Tensor:
    """Copy every window, and process all windows as one batch."""
    windows = maps.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
    return head(windows.flatten(3), *layers).movedim(3, 1)


def head(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> Tensor:
    return F.linear(F.linear(F.linear(x, w1, b1).relu(), w2, b2).relu(), w3, b3)


def head_case(maps: int, hidden: int, classes: int, side: int, rows: int, itemsize: int) -> Case:
    places = (rows - side + 1) ** 2
    weights = maps * side**2 * hidden + hidden**2 + hidden * classes

    def inputs_of(g: torch.Generator) -> tuple[Tensor, ...]:
        sizes = (maps * side**2, hidden, hidden, classes)
        layers = [
            tensor
            for inputs, outputs in pairwise(sizes)
            for tensor in (
                torch.randn(outputs, inputs, generator=g) / inputs**0.5,
                torch.randn(outputs, generator=g),
            )
        ]
        return torch.rand(1, maps, rows, rows, generator=g), *layers

    return Case(
        name="head at every place",
        axes={"places": places, "side": rows},
        inputs=inputs_of,
        variants=(
            Variant(name="window by window", role="naive", call=partial(window_by_window, side=side)),
            Variant(name="all windows as a batch", role="strong", call=partial(all_windows, side=side)),
            Variant(name="as convolutions", role="paper", call=partial(dense_head, side=side)),
        ),
        cost={"forward": Cost(flops=2 * places * weights, bytes=(weights + maps * rows**2) * itemsize)},
    )


def image_by_image(network: VGG, images: Tensor) -> Tensor:
    return torch.cat([network(image) for image in images.split(1)])


def every_relu_after_pooling(network: VGG, images: Tensor) -> Tensor:
    """The network in channels-last format. The ReLU before each pooling layer is applied after it."""
    x = images
    for layer, following in pairwise((*network.features, None)):
        if isinstance(layer, nn.MaxPool2d):
            x = layer(x).relu_()
        elif isinstance(layer, nn.ReLU):
            x = x if isinstance(following, nn.MaxPool2d) else x.relu_()
        else:
            x = layer(x)
    return network.classifier(x.flatten(1))


def channels_last(weights: Mapping[str, Tensor], images: Tensor) -> tuple[object, ...]:
    last = torch.channels_last
    filters = {n: w.contiguous(memory_format=last) if w.dim() == 4 else w for n, w in weights.items()}
    return filters, images.contiguous(memory_format=last)


def image_case(batch: int, column: str, hidden: int, classes: int, side: int, itemsize: int) -> Case:
    halvings = TABLE_1.get(column, column).split().count("M")
    make = partial(VGG, column, hidden=hidden, classes=classes, side=side // 2**halvings, dropout=0.0)
    with torch.device("meta"):
        network = make()
    products, places = 0, side**2
    for layer in (*network.features, *network.classifier):
        if isinstance(layer, nn.Conv2d):
            products += places * layer.weight.numel()
        elif isinstance(layer, nn.MaxPool2d):
            places //= 4
        elif isinstance(layer, nn.Linear):
            products += layer.weight.numel()
    weights = sum(weight.numel() for weight in network.parameters())
    moved = weights + batch * (3 * side**2 + classes)
    return Case.of_module(
        make,
        name="images",
        axes={"images": batch, "side": side, "layers": column if column in TABLE_1 else "D, narrow"},
        inputs=lambda g: (torch.randn(batch, 3, side, side, generator=g),),
        variants=(
            Variant.of_module(make, image_by_image, name="image by image", role="naive"),
            Variant.of_module(
                make,
                every_relu_after_pooling,
                name="channels last, pooled before the ReLU",
                role="strong",
                prepare=channels_last,
            ),
            Variant.of_module(make, name="VGG", role="paper"),
        ),
        cost={"forward": Cost(flops=2 * batch * products, bytes=moved * itemsize)},
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    itemsize = bench.dtype.itemsize
    for sizes in bench.pick(
        smoke=((2, 3, 5, 7),), quick=((2, 64, 128, 56),), full=((16, 3, 64, 224), (16, 128, 256, 56))
    ):
        yield stage_case(*sizes, itemsize)
    for sizes in bench.pick(
        smoke=((4, 6, 5, 3, 5),), quick=((128, 512, 100, 7, 14),), full=((512, 4096, 1000, 7, 14),)
    ):
        yield head_case(*sizes, itemsize)
    for batch, column, hidden, classes, side in bench.pick(
        smoke=((2, "4 4 M 6 6 M", 5, 3, 8),),
        quick=((4, NARROW, 512, 1000, 112),),
        full=((1, "D", 4096, 1000, 224), (8, "D", 4096, 1000, 224)),
    ):
        yield image_case(batch, column, hidden, classes, side, itemsize)
