"""Times an Inception block forward and backward, and the whole network on images."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import TABLE_1, GoogLeNet, Inception, Widths

Convolve = Callable[[Tensor, Tensor, Tensor], Tensor]


def of_patches(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    side = weight.shape[-1]
    columns = weight.flatten(1) @ F.unfold(x, side, padding=side // 2) + bias[:, None]
    return columns.unflatten(2, x.shape[2:])


def torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def apart(w: Mapping[str, Tensor], x: Tensor, *, widths: Widths, convolve: Convolve) -> Tensor:
    """The block with four separate branches, as drawn in figure 2b."""
    sizes = (widths.one, widths.reduce3, widths.reduce5)
    entries = zip(w["entry.weight"].split(sizes), w["entry.bias"].split(sizes), strict=True)
    one, three, five = (convolve(x, *entry).relu() for entry in entries)
    three = convolve(three, w["three.weight"], w["three.bias"]).relu()
    five = convolve(five, w["five.weight"], w["five.bias"]).relu()
    pool = convolve(pooled(x), w["project.weight"], w["project.bias"]).relu()
    return torch.cat((one, three, five, pool), 1)


def weight_of(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5
    # All biases are far from 0, because near 0 the gradient of a ReLU depends on rounding.
    return torch.randn(shape, generator=generator).sign() * (10 if "entry" in name else 60)


def network_of(classes: int) -> GoogLeNet:
    """The network at inference, without the auxiliary heads, which are used in training only."""
    network = GoogLeNet(classes=classes).eval()
    network.heads = nn.ModuleDict()
    return network


def image_by_image(network: GoogLeNet, images: Tensor) -> Tensor:
    return torch.cat([network(image) for image in images.split(1)])


def four_branches(network: GoogLeNet, images: Tensor) -> Tensor:
    """The network of torch's modules: four branches in each block, and torch's response normalisation."""

    def norm(x: Tensor) -> Tensor:
        wide = x.float() if x.dtype.itemsize < 4 else x  # torch's needs at least float32 on a CPU
        return F.local_response_norm(wide, 5, alpha=5e-4, beta=0.75, k=2.0).to(x.dtype)

    x = norm(network.pool(network.conv1(images).relu_()))
    x = network.pool(norm(network.conv2(network.reduce(x).relu_()).relu_()))
    for name, block in network.blocks.items():
        if name in ("4a", "5a"):
            x = network.pool(x)
        x = apart(dict(block.named_parameters()), x, widths=block.widths, convolve=torchs)
    return network.scores(F.adaptive_avg_pool2d(x, 1).flatten(1))


def image_case(batch: int, side: int, classes: int, itemsize: int) -> Case:
    make = partial(network_of, classes)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = make()
        network(torch.empty(batch, 3, side, side))
    weights = sum(weight.numel() for weight in network.parameters())
    return Case.of_module(
        make,
        name="images",
        axes={"images": batch, "side": side},
        inputs=lambda g: (torch.randn(batch, 3, side, side, generator=g),),
        variants=(
            Variant.of_module(make, image_by_image, name="image by image", role="naive"),
            Variant.of_module(make, four_branches, name="torch's modules, four branches", role="strong"),
            Variant.of_module(make, name="GoogLeNet", role="paper"),
        ),
        cost={
            "forward": Cost(
                flops=counter.get_total_flops(),
                bytes=(weights + batch * (3 * side**2 + classes)) * itemsize,
            )
        },
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    small = Widths(5, 4, 6, 3, 4, 2)
    for batch, inputs, side, widths in bench.pick(
        smoke=((2, 6, 5, small),),
        quick=((4, 192, 28, TABLE_1["3a"]),),
        full=((32, 192, 28, TABLE_1["3a"]), (32, 512, 14, TABLE_1["4b"])),
    ):
        make = partial(Inception, inputs, widths)
        with torch.device("meta"):
            weights = sum(w.numel() for w in make().parameters() if w.ndim == 4)
        values = batch * side**2 * (inputs + widths.outputs(inputs))
        yield Case.of_module(
            make,
            name="Inception block",
            axes={"maps": inputs, "side": side, "batch": batch},
            inputs=lambda g, shape=(batch, inputs, side, side): (torch.randn(shape, generator=g),),
            weight=weight_of,
            variants=(
                Variant(
                    name="patches", role="naive", call=partial(apart, widths=widths, convolve=of_patches)
                ),
                Variant(
                    name="torch's convolutions, four branches",
                    role="strong",
                    call=partial(apart, widths=widths, convolve=torchs),
                ),
                Variant.of_module(make, name="three 1 × 1 layers as one", role="paper"),
            ),
            cost=Cost.products(2 * batch * side**2 * weights, (values + weights) * bench.dtype.itemsize),
        )
    for batch, side, classes in bench.pick(
        smoke=((2, 32, 3),), quick=((2, 112, 1000),), full=((1, 224, 1000), (32, 224, 1000))
    ):
        yield image_case(batch, side, classes, bench.dtype.itemsize)
