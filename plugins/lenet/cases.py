"""The benchmark's cases: two layers, and the whole of LeNet-5."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from readtrack.plugin import Bench, Case, Cost, Variant

from .convolution import A, S, convolve
from .network import TABLE_I, LeNet5, typeset

with torch.device("meta"):
    NAMES = tuple(name for name, _ in LeNet5().named_parameters())


def by_windows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Every window copied out and multiplied by every filter, as the definition reads."""
    kernel = weight.shape[-1]
    windows = x.unfold(2, kernel, 1).unfold(3, kernel, 1)
    return torch.einsum("bchwij,mcij->bmhw", windows, weight) + bias[:, None, None]


def with_layers(convolution: Callable[..., Tensor], x: Tensor, *weights: Tensor) -> Tensor:
    """LeNet-5 from a given convolution and otherwise torch's own functions."""
    w = dict(zip(NAMES, weights, strict=True))

    def bend(a: Tensor) -> Tensor:
        return A * torch.tanh(S * a)

    def halve(maps: Tensor, layer: str) -> Tensor:
        coefficient, bias = (w[f"{layer}.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return bend(torch.addcmul(bias, F.avg_pool2d(maps, 2), 4 * coefficient))

    x = halve(bend(convolution(x, w["c1.weight"][:, None], w["c1.bias"])), "s2")
    places = [(map_, seen) for map_, row in enumerate(TABLE_I) for seen in row]
    c3 = w["c3.weight"].new_zeros(16, 6, 5, 5).index_put(tuple(torch.tensor(places).T), w["c3.weight"])
    x = halve(bend(convolution(x, c3, w["c3.bias"])), "s4")
    x = bend(convolution(x, w["c5.weight"].view(120, 16, 5, 5), w["c5.bias"])).flatten(1)
    drawn = bend(F.linear(x, w["f6.weight"], w["f6.bias"]))
    return (drawn[:, None] - typeset().to(drawn)).square().sum(2)


def convolution_cost(
    batch: int, maps_in: int, side: int, maps: int, kernel: int, itemsize: int
) -> dict[str, Cost]:
    places, filters = (side - kernel + 1) ** 2, maps * maps_in * kernel**2
    work = 2 * batch * places * filters
    moved = (batch * maps_in * side**2 + filters + maps + batch * maps * places) * itemsize
    return both(work, moved)


def lenet_cost(batch: int, itemsize: int) -> dict[str, Cost]:
    """A multiply-add for each connection."""
    with torch.device("meta"):
        model = LeNet5()
    parameters, connections = (sum(column) for column in zip(*model.sizes().values(), strict=True))
    return both(2 * batch * connections, (parameters + batch * (model.side**2 + 10)) * itemsize)


def both(work: int, moved: int) -> dict[str, Cost]:
    # Backward takes two products for each: one for what came in, one for the weights.
    return {
        "forward": Cost(flops=work, bytes=moved),
        "forward+backward": Cost(flops=3 * work, bytes=2 * moved),
    }


def benchmark_inputs(generator: torch.Generator, batch: int) -> tuple[Tensor, ...]:
    with torch.device("meta"):
        shapes = [weight.shape for weight in LeNet5().parameters()]
    images = torch.randn(batch, 1, 32, 32, generator=generator)
    return images, *(torch.randn(shape, generator=generator) * 0.2 for shape in shapes)


def declare(bench: Bench) -> Iterator[Case]:
    layers = {"C1": (1, 32, 6, 5), "C3, complete": (6, 14, 16, 5)}
    for batch in bench.pick(smoke=(2,), quick=(64,), full=(16, 256, 1024)):
        for layer, (maps_in, side, maps, kernel) in layers.items():
            yield Case(
                name=f"convolution {layer}",
                axes={"batch": batch},
                inputs=lambda g, batch=batch, maps_in=maps_in, side=side, maps=maps, kernel=kernel: (
                    torch.randn(batch, maps_in, side, side, generator=g),
                    torch.randn(maps, maps_in, kernel, kernel, generator=g),
                    torch.randn(maps, generator=g),
                ),
                variants=(
                    Variant(name="windows", role="naive", call=by_windows),
                    Variant(name="torch conv2d", role="strong", call=F.conv2d),
                    Variant(name="band matrix", role="paper", call=convolve),
                ),
                cost=convolution_cost(batch, maps_in, side, maps, kernel, bench.dtype.itemsize),
            )
    model = LeNet5().to(bench.device)

    def ours(images: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(model, dict(zip(NAMES, weights, strict=True)), (images,))

    for batch in bench.pick(smoke=(2,), quick=(64,), full=(16, 256, 1024)):
        yield Case(
            name="LeNet-5",
            axes={"batch": batch},
            inputs=partial(benchmark_inputs, batch=batch),
            variants=(
                Variant(name="windows", role="naive", call=partial(with_layers, by_windows)),
                Variant(name="torch's layers", role="strong", call=partial(with_layers, F.conv2d)),
                Variant(name="band matrices", role="paper", call=ours),
            ),
            cost=lenet_cost(batch, bench.dtype.itemsize),
        )
