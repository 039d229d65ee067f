"""Times the gradients of all units of a layer, each with respect to its own image."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..saliency.benchmark import make, tolerance, weight_of
from ..saliency.network import SIDE, WIDTHS, PairNet
from .units import CUTS, responses

LAYER = "layer 2"


def one_by_one(network: PairNet, pictures: Tensor) -> Tensor:
    activity, gradients = responses(network, LAYER), []
    for unit, picture in enumerate(pictures.split(1)):
        with torch.enable_grad():
            leaf = picture.detach().requires_grad_()
            gradients.append(torch.autograd.grad(activity(leaf)[0, unit], leaf)[0])
    return torch.cat(gradients)


def through_the_network(network: PairNet, pictures: Tensor) -> Tensor:
    """Process one batch with a hook on the layer. Later layers are computed unnecessarily."""
    kept: list[Tensor] = []
    handle = network.layers[CUTS[LAYER] - 1].register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.enable_grad():
        leaf = pictures.detach().requires_grad_()
        network(leaf)
        (gradient,) = torch.autograd.grad(kept[0].mean((2, 3)).diagonal().sum(), leaf)
    handle.remove()
    return gradient


def up_to_the_layer(network: PairNet, pictures: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = pictures.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(responses(network, LAYER)(leaf).diagonal().sum(), leaf)
    return gradient


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    work = 2 * (75 * WIDTHS[0] * SIDE**2 + 9 * WIDTHS[0] * WIDTHS[1] * (SIDE // 2) ** 2)
    pictures = WIDTHS[1]
    yield Case.of_module(
        make,
        name="gradients of a layer's units",
        axes={"units": pictures},
        inputs=lambda g: (torch.rand(pictures, 3, SIDE, SIDE, generator=g),),
        weight=weight_of,
        tolerance=tolerance(bench),
        variants=(
            Variant.of_module(make, one_by_one, name="unit by unit", role="naive"),
            Variant.of_module(make, through_the_network, name="a batch and a hook", role="strong"),
            Variant.of_module(make, up_to_the_layer, name="a batch, up to the layer", role="paper"),
        ),
        cost={
            "forward": Cost(
                flops=2 * pictures * work, bytes=2 * pictures * 3 * SIDE**2 * bench.dtype.itemsize
            )
        },
    )
