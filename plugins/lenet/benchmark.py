"""Times the forward and backward passes of LeNet-5."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import TABLE_I, LeNet5, squash, typeset


def by_windows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The definition of a convolution: copies every window and multiplies it by every filter."""
    kernel = weight.shape[-1]
    windows = x.unfold(2, kernel, 1).unfold(3, kernel, 1)
    return torch.einsum("bchwij,mcij->bmhw", windows, weight) + bias[:, None, None]


def with_layers(w: Mapping[str, Tensor], x: Tensor, *, convolution: Callable[..., Tensor]) -> Tensor:
    """LeNet-5 with the given convolution, and torch's own functions for the other layers."""

    def halve(maps: Tensor, layer: str) -> Tensor:
        coefficient, bias = (w[f"{layer}.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return squash(torch.addcmul(bias, F.avg_pool2d(maps, 2), 4 * coefficient))

    x = halve(squash(convolution(x, w["c1.weight"][:, None], w["c1.bias"])), "s2")
    seen = [(map_, one) for map_, row in enumerate(TABLE_I) for one in row]
    c3 = w["c3.weight"].new_zeros(16, 6, 5, 5).index_put(tuple(torch.tensor(seen).T), w["c3.weight"])
    x = halve(squash(convolution(x, c3, w["c3.bias"])), "s4")
    x = squash(convolution(x, w["c5.weight"].view(120, 16, 5, 5), w["c5.bias"])).flatten(1)
    drawn = squash(F.linear(x, w["f6.weight"], w["f6.bias"]))
    return (drawn[:, None] - typeset().to(drawn)).square().sum(2)


def cost(batch: int, itemsize: int) -> dict[str, Cost]:
    """One multiply-add per connection."""
    with torch.device("meta"):
        model = LeNet5()
    parameters, connections = (sum(column) for column in zip(*model.sizes().values(), strict=True))
    return Cost.products(2 * batch * connections, (parameters + batch * (model.side**2 + 10)) * itemsize)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for batch in bench.pick(smoke=(2,), quick=(64,), full=(16, 256, 1024)):
        yield Case.of_module(
            LeNet5,
            name="LeNet-5",
            axes={"batch": batch},
            inputs=lambda g, batch=batch: (torch.randn(batch, 1, 32, 32, generator=g),),
            weight=lambda name, shape, g: torch.randn(shape, generator=g) * 0.2,
            variants=(
                Variant(name="windows", role="naive", call=partial(with_layers, convolution=by_windows)),
                Variant(
                    name="torch's layers", role="strong", call=partial(with_layers, convolution=F.conv2d)
                ),
                Variant.of_module(LeNet5, name="LeNet5", role="paper"),
            ),
            cost=cost(batch, bench.dtype.itemsize),
        )
