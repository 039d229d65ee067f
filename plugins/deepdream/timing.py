"""Times one step of the dream, and dreaming until the mean energy over all sizes has grown."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor

from readtrack import data
from readtrack.plugin import Bench, Case, Cost, Variant

from .ascent import dream, energy, resize, step
from .network import COLUMNS, ROWS, Network, activity, colors_of, learn, side_by_side, strokes


def pair(weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of weight and bias, one for each layer."""
    return list(zip(weights[0::2], weights[1::2], strict=True))


def one_step(image: Tensor, colors: Tensor, *weights: Tensor) -> Tensor:
    """A step by the plugin's code: forward to the deepest layer, and the gradient of the image."""
    layers = pair(weights)
    return step(image, lambda x: energy(activity(x, colors, layers)), size=1.5 / 255)


def every_gradient(image: Tensor, colors: Tensor, *weights: Tensor) -> Tensor:
    """A step with the backward pass of training, which also computes the gradients of all weights."""
    leaves = [weight.detach().requires_grad_() for weight in weights]
    moved = image.detach().clone().requires_grad_()
    with torch.enable_grad():
        energy(activity(moved, colors, pair(leaves))).sum().backward()
    return (image + 1.5 / 255 / moved.grad.abs().mean((1, 2, 3), keepdim=True) * moved.grad).clamp(0, 1)


def channels_last(image: Tensor, colors: Tensor, *weights: Tensor) -> Tensor:
    """A step with only the image's gradient, in the layout that torch recommends for convolutions."""
    ordered = [w.contiguous(memory_format=torch.channels_last) if w.ndim == 4 else w for w in weights]
    moved = image.detach().to(memory_format=torch.channels_last, copy=True).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(energy(activity(moved, colors, pair(ordered))).sum(), moved)
    pace = 1.5 / 255 / gradient.abs().mean((1, 2, 3), keepdim=True)
    return (image + pace * gradient).clamp_(0, 1).contiguous()


Way = Literal["one size", "all sizes at once", "octaves"]


def reaches(
    way: Way, target: float, image: Tensor, colors: Tensor, *weights: Tensor
) -> dict[str, int | bool]:
    """Dream until the third layer's energy, averaged over the notebook's four sizes, is `target` times the
    initial energy, and count the steps at all sizes. The ascent uses the full size, the mean over all sizes,
    or octaves."""
    layers = pair(weights)[:3]

    def objective(x: Tensor) -> Tensor:
        return energy(activity(x, colors, layers))

    def at_every_size(x: Tensor) -> Tensor:
        copies = [x]
        for _ in range(3):
            copies.append(resize(copies[-1], *(round(side / 1.4) for side in copies[-1].shape[2:])))
        return torch.stack([objective(copy) for copy in copies])

    def gain(x: Tensor) -> float:
        with torch.no_grad():
            return (at_every_size(x) / start).mean().item()

    with torch.no_grad():
        start = at_every_size(image)
    generator, steps = torch.Generator().manual_seed(0), 0
    if way == "octaves":
        for count in (1, 2, 4, 8, 16):
            dreamt = dream(image, objective, steps=count, generator=generator)[-1]
            steps += 4 * count
            if gain(dreamt) >= target:
                return {"reached": True, "steps": steps}
        return {"reached": False, "steps": steps}
    aim = objective if way == "one size" else lambda x: (at_every_size(x) / start).mean(0)
    dreamt = image
    for _ in range(20):
        dreamt = dream(dreamt, aim, octaves=1, steps=3, generator=generator)[-1]
        steps += 3
        if gain(dreamt) >= target:
            return {"reached": True, "steps": steps}
    return {"reached": False, "steps": steps}


def cost(height: int, width: int, itemsize: int) -> dict[str, Cost]:
    """FLOPs of a forward and a backward pass of each convolution, without elementwise operations."""
    products = weights = 0
    for depth, layer in enumerate(skeleton().layers):
        products += 4 * layer.weight.numel() * (height >> depth) * (width >> depth)
        weights += layer.weight.numel() + layer.bias.numel()
    return {"forward": Cost(flops=products, bytes=(2 * 3 * height * width + weights) * itemsize)}


def skeleton() -> Network:
    """A network on the meta device, for its shapes."""
    with torch.device("meta"):
        return Network(torch.empty(3, 3), 1)


def benchmark_inputs(generator: torch.Generator, height: int) -> tuple[Tensor, ...]:
    """A photograph, and the layers of an untrained network.

    The biases are not zero. Otherwise filters would output exactly zero in a white sky, and rounding would
    decide on which side of the ReLU's kink they fall.
    """
    weights = []
    for layer in skeleton().layers:
        weight, bias = (torch.randn(shape.shape, generator=generator) for shape in (layer.weight, layer.bias))
        weights += [weight * (2 / weight[0].numel()) ** 0.5, 0.1 * bias]
    return data.photographs(height)[:1], torch.eye(3) + 0.5, *weights


@cache
def trained(steps: int) -> Network:
    """The experiment's network, trained on all digits for `steps` steps."""
    photographs, (images, labels) = data.photographs(240), data.digits()
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        network = Network(colors_of(photographs), 10 + ROWS * COLUMNS)
        wall, generator = side_by_side(photographs), torch.Generator().manual_seed(0)
        learn(network, wall, strokes(images), labels, generator, steps, range(steps))
    return network.requires_grad_(False)


def trained_inputs(generator: torch.Generator, height: int, steps: int) -> tuple[Tensor, ...]:
    """One of the photographs, and the layers of the network trained for `steps` steps."""
    which = torch.randint(2, (), generator=generator)
    network = trained(steps)
    weights = [weight.clone() for layer in network.layers for weight in (layer.weight, layer.bias)]
    return data.photographs(height)[which][None], network.colors.clone(), *weights


def cases(bench: Bench) -> Iterator[Case]:
    for height in bench.pick(smoke=(24,), quick=(120, 240), full=(120, 240, 427)):
        width = round(640 * height / 427)
        yield Case(
            name="dream step",
            axes={"height": height, "width": width},
            inputs=partial(benchmark_inputs, height=height),
            variants=(
                Variant(name="every gradient", role="naive", call=every_gradient),
                Variant(name="channels last", role="strong", call=channels_last),
                Variant(name="step", role="paper", call=one_step),
            ),
            cost=cost(height, width, bench.dtype.itemsize),
            # Rounding puts some of a million units on the other side of their ReLU's kink. Each changes the
            # pixels in its receptive field by up to 0.007. Without a step the error would be at least 0.04.
            tolerance=0.02 if bench.dtype.itemsize >= 4 else None,
        )
    height = bench.pick(smoke=48, quick=120, full=240)
    target = bench.pick(smoke=1.02, quick=1.5, full=1.5)
    steps = bench.pick(smoke=5, quick=200, full=400)
    yield Case(
        name="more at every size",
        axes={"height": height, "times": target},
        inputs=partial(trained_inputs, height=height, steps=steps),
        variants=(
            Variant(name="one size", role="naive", call=partial(reaches, "one size", target)),
            Variant(
                name="all sizes at once", role="strong", call=partial(reaches, "all sizes at once", target)
            ),
            Variant(name="octaves", role="paper", call=partial(reaches, "octaves", target)),
        ),
        cost={"until": None},
    )
