"""Times occlusion maps and the backward pass through pooling."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..saliency.benchmark import make, tolerance, weight_of
from ..saliency.network import SIDE, PairNet
from .occlusion import corners, covered, occluded
from .projection import gradient, pull_back

SQUARE = 5


def one_by_one(network: PairNet, images: Tensor, classes: Tensor) -> Tensor:
    """Run one forward pass per square."""
    places = corners(SIDE, SIDE, SQUARE, 1)
    maps = []
    for image, label in zip(images, classes.tolist(), strict=True):
        scores = [network(copy[None])[0, label] for copy in covered(image, places, SQUARE)]
        maps.append(torch.stack(scores).view(SIDE - SQUARE + 1, -1))
    return torch.stack(maps)


def all_at_once(network: PairNet, images: Tensor, classes: Tensor) -> Tensor:
    """Process all squares on all images in one batch."""
    places = corners(SIDE, SIDE, SQUARE, 1)
    copies = torch.cat([covered(image, places, SQUARE) for image in images])
    scores = network(copies).unflatten(0, (len(images), -1))
    asked = scores.gather(2, classes[:, None, None].expand(-1, len(places), 1))
    return asked.view(len(images), SIDE - SQUARE + 1, -1)


def of_images(network: PairNet, images: Tensor, classes: Tensor) -> Tensor:
    """Process the squares on one image as a batch, which fits into the cache."""
    return occluded(network, images, classes, side=SQUARE)


def sum_of_maps(maps: Tensor) -> Tensor:
    return torch.ones_like(maps)


def by_autograd(network: PairNet, images: Tensor) -> Tensor:
    """The gradient of the sum of the last feature maps, by autograd."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        (found,) = torch.autograd.grad(network.layers(leaf).sum(), leaf)
    return found


def by_pull_back(network: PairNet, images: Tensor) -> Tensor:
    return pull_back(network.layers, images, gradient, sum_of_maps)


def scattered(network: PairNet, images: Tensor) -> Tensor:
    """The backward pass with switches as masks, which send the gradient to each window's maximum."""
    x, inputs = images, []
    for layer in network.layers:
        inputs.append(x)
        x = layer(x)
    back = torch.ones_like(x)
    for layer, x in zip(reversed(network.layers), reversed(inputs), strict=True):
        if isinstance(layer, torch.nn.Conv2d):
            back = F.conv_transpose2d(back, layer.weight, padding=layer.padding)
        elif isinstance(layer, torch.nn.ReLU):
            back = back * (x > 0)
        else:
            high = F.max_pool2d(x, 2)
            back = F.interpolate(back, scale_factor=2) * (x == F.interpolate(high, scale_factor=2))
    return back


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    with torch.device("meta"):
        shapes = [tuple(w.shape) for w in make().parameters() if w.ndim == 4]
    places = (SIDE**2, (SIDE // 2) ** 2, (SIDE // 4) ** 2, (SIDE // 4) ** 2)
    work = 2 * sum(torch.Size(shape).numel() * count for shape, count in zip(shapes, places, strict=True))
    image = 3 * SIDE**2 * bench.dtype.itemsize
    squares = len(corners(SIDE, SIDE, SQUARE, 1))
    for batch in bench.pick(smoke=(1,), quick=(2,), full=(2, 16)):
        yield Case.of_module(
            make,
            name="occlusion",
            axes={"images": batch},
            inputs=lambda g, batch=batch: (
                torch.rand(batch, 3, SIDE, SIDE, generator=g),
                torch.randint(5, (batch,), generator=g),
            ),
            weight=weight_of,
            variants=(
                Variant.of_module(make, one_by_one, name="square by square", role="naive"),
                Variant.of_module(make, all_at_once, name="all squares of all images", role="strong"),
                Variant.of_module(make, of_images, name="all squares of an image", role="paper"),
            ),
            cost={"forward": Cost(flops=batch * (squares + 1) * work, bytes=batch * (squares + 1) * image)},
        )
    for batch in bench.pick(smoke=(2,), quick=(32,), full=(32, 256)):
        yield Case.of_module(
            make,
            name="the way back",
            axes={"images": batch},
            inputs=lambda g, batch=batch: (torch.rand(batch, 3, SIDE, SIDE, generator=g),),
            weight=weight_of,
            tolerance=tolerance(bench),
            variants=(
                Variant.of_module(make, scattered, name="switches as masks", role="naive"),
                Variant.of_module(make, by_autograd, name="autograd", role="strong"),
                Variant.of_module(make, by_pull_back, name="switches unpooled", role="paper"),
            ),
            cost={"forward": Cost(flops=2 * batch * work, bytes=2 * batch * image)},
        )
