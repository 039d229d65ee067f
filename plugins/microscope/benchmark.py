"""Times the gradients of all units of a layer, and the pictures that are optimised for them."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..saliency.benchmark import make, tolerance, weight_of
from ..saliency.network import SIDE, WIDTHS, PairNet
from .units import CUTS, optimised, responses

LAYER = "layer 2"
Draw = Callable[[PairNet, torch.Generator, int], Tensor]


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


def of_the_layer(network: PairNet, generator: torch.Generator, steps: int) -> Tensor:
    """Optimise the pictures of all units of the layer together."""
    units = torch.arange(WIDTHS[1], device=network.classifier.weight.device)
    dtype = network.classifier.weight.dtype
    return optimised(responses(network, LAYER), units, generator, side=SIDE, steps=steps, dtype=dtype)


def unit_by_unit(network: PairNet, generator: torch.Generator, steps: int) -> Tensor:
    units = torch.arange(WIDTHS[1], device=network.classifier.weight.device)
    settings = {"side": SIDE, "steps": steps, "dtype": network.classifier.weight.dtype}
    activity = responses(network, LAYER)
    return torch.cat([optimised(activity, unit, generator, **settings) for unit in units.split(1)])


def with_a_hook(network: PairNet, generator: torch.Generator, steps: int) -> Tensor:
    """The same steps, with a hook on the layer and a pass through the whole network, as in libraries."""
    kept: list[Tensor] = []

    def activity(images: Tensor) -> Tensor:
        network(images)
        return kept.pop().mean((2, 3))

    units = torch.arange(WIDTHS[1], device=network.classifier.weight.device)
    dtype = network.classifier.weight.dtype
    handle = network.layers[CUTS[LAYER] - 1].register_forward_hook(lambda _m, _i, out: kept.append(out))
    images = optimised(activity, units, generator, side=SIDE, steps=steps, dtype=dtype)
    handle.remove()
    return images


def pictures(network: PairNet, seed: Tensor, *, draw: Draw, steps: int) -> dict[str, float]:
    """Draw a picture for each unit. Returns their number, and whether all pixels are between 0 and 1."""
    images = draw(network, torch.Generator().manual_seed(int(seed)), steps)
    return {"reached": float(((images >= 0) & (images <= 1)).all()), "pictures": float(len(images))}


def picture_case(steps: int) -> Case:
    ways = (
        ("unit by unit", "naive", unit_by_unit),
        ("a batch and a hook", "strong", with_a_hook),
        ("a batch, up to the layer", "paper", of_the_layer),
    )
    return Case.of_module(
        make,
        name="pictures of a layer's units",
        axes={"steps": steps, "units": WIDTHS[1]},
        inputs=lambda g: (torch.randint(2**31, (), generator=g),),
        weight=weight_of,
        variants=[
            Variant.of_module(make, partial(pictures, draw=way, steps=steps), name=name, role=role)
            for name, role, way in ways
        ],
        cost={"until": None},
    )


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
    yield picture_case(bench.pick(smoke=2, quick=4, full=200))
