"""Times guided backpropagation through a network of convolutions and pooling."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..saliency.benchmark import make, tolerance, weight_of
from ..saliency.network import SIDE, PairNet
from ..zfnet import pull_back
from .model import guided


def ones(maps: Tensor) -> Tensor:
    return torch.ones_like(maps)


def with_hooks(network: PairNet, images: Tensor) -> Tensor:
    """The usual implementation: backward hooks on all ReLUs clamp autograd's gradient."""
    hooks = [
        layer.register_full_backward_hook(lambda _layer, back, _given: (back[0].clamp(min=0),))
        for layer in network.layers
        if isinstance(layer, nn.ReLU)
    ]
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        (found,) = torch.autograd.grad(network.layers(leaf).sum(), leaf)
    for hook in hooks:
        hook.remove()
    return found


class Guided(torch.autograd.Function):
    """A ReLU with guided backpropagation as its backward pass."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        out = x.relu()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, signal: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return guided(signal, out)


def with_a_function(network: PairNet, images: Tensor) -> Tensor:
    """A custom autograd function in place of each ReLU, without weight gradients."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        x = leaf
        for layer in network.layers:
            if isinstance(layer, nn.Conv2d):
                x = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding)
            else:
                x = Guided.apply(x) if isinstance(layer, nn.ReLU) else layer(x)
        (found,) = torch.autograd.grad(x.sum(), leaf)
    return found


def explicit(network: PairNet, images: Tensor) -> Tensor:
    """A backward pass layer by layer, without autograd."""
    return pull_back(network.layers, images, guided, ones)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    with torch.device("meta"):
        shapes = [tuple(w.shape) for w in make().parameters() if w.ndim == 4]
    places = (SIDE**2, (SIDE // 2) ** 2, (SIDE // 4) ** 2, (SIDE // 4) ** 2)
    work = 2 * sum(torch.Size(shape).numel() * count for shape, count in zip(shapes, places, strict=True))
    image = 3 * SIDE**2 * bench.dtype.itemsize
    for batch in bench.pick(smoke=(2,), quick=(32,), full=(1, 32, 256)):
        yield Case.of_module(
            make,
            name="guided maps",
            axes={"images": batch},
            inputs=lambda g, batch=batch: (torch.rand(batch, 3, SIDE, SIDE, generator=g),),
            weight=weight_of,
            tolerance=tolerance(bench),
            variants=(
                Variant.of_module(make, with_hooks, name="hooks on autograd", role="naive"),
                Variant.of_module(make, with_a_function, name="autograd function", role="strong"),
                Variant.of_module(make, explicit, name="layer by layer", role="paper"),
            ),
            cost={"forward": Cost(flops=2 * batch * work, bytes=2 * batch * image)},
        )
