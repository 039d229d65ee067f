"""Times Grad-CAM of all classes for a batch of images."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..saliency.benchmark import make, weight_of
from ..saliency.network import SIDE, PairNet
from .maps import grad_cam, weighted


def through_the_network(network: PairNet, images: Tensor) -> Tensor:
    """For each class, one forward pass and one backward pass to the pixels, as with hooks."""
    found = []
    for label in range(network.classifier.out_features):
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            maps = network.features(leaf)
            score = network.classifier(maps.mean((2, 3)))[:, label].sum()
            gradient, _ = torch.autograd.grad(score, (maps, leaf))
        found.append(weighted(maps.detach(), gradient.mean((2, 3))))
    return torch.stack(found, 1)


def closed_form(network: PairNet, images: Tensor) -> Tensor:
    """The class activation map, without a backward pass. Needs average pooling and a linear layer."""
    maps = network.features(images)
    heat = torch.einsum("nmrc,km->nkrc", maps, network.classifier.weight)
    return heat.relu() / maps[0, 0].numel()


def to_the_last_maps(network: PairNet, images: Tensor) -> Tensor:
    """Grad-CAM for any head: one forward pass, then a backward pass to the last maps for all classes."""
    classes = network.classifier.out_features
    maps = network.features(images)
    labels = torch.arange(classes, device=images.device).repeat(len(images))
    heat = grad_cam(
        lambda shown: shown,
        lambda shown: network.classifier(shown.mean((2, 3))),
        maps.repeat_interleave(classes, 0),
        labels,
    )
    return heat.unflatten(0, (-1, classes))


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    with torch.device("meta"):
        shapes = [tuple(w.shape) for w in make().parameters() if w.ndim == 4]
    places = (SIDE**2, (SIDE // 2) ** 2, (SIDE // 4) ** 2, (SIDE // 4) ** 2)
    work = sum(torch.Size(shape).numel() * count for shape, count in zip(shapes, places, strict=True))
    for batch in bench.pick(smoke=(2,), quick=(64,), full=(1, 64, 512)):
        yield Case.of_module(
            make,
            name="maps of all classes",
            axes={"images": batch},
            inputs=lambda g, batch=batch: (torch.rand(batch, 3, SIDE, SIDE, generator=g),),
            weight=weight_of,
            variants=(
                Variant.of_module(make, through_the_network, name="back through all layers", role="naive"),
                Variant.of_module(make, closed_form, name="CAM's closed form", role="strong"),
                Variant.of_module(make, to_the_last_maps, name="back to the last maps", role="paper"),
            ),
            cost={"forward": Cost(flops=2 * batch * work, bytes=batch * 3 * SIDE**2 * bench.dtype.itemsize)},
        )
