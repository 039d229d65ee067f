"""Times a weight-normalised convolution, computed from equation 2, by torch, or by our version."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import line_by_line, weight_norm


def convolved(normalise: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x, v, g, bias: F.conv2d(x, normalise(v, g), bias, padding=1)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((2, 3, 4, 5),),
        quick=((16, 64, 64, 16), (2, 256, 256, 8)),
        full=((64, 64, 64, 56), (64, 256, 256, 14), (64, 512, 512, 7)),
    )
    for batch, inputs, units, side in sizes:
        yield case(batch, inputs, units, side, bench.dtype.itemsize)


def case(batch: int, inputs: int, units: int, side: int, itemsize: int) -> Case:
    def drawn(generator: torch.Generator) -> tuple[Tensor, ...]:
        """Direction vectors of very different lengths. Their lengths do not affect the result."""
        lengths = torch.logspace(-2, 2, units).view(-1, 1, 1, 1)
        return (
            torch.randn(batch, inputs, side, side, generator=generator),
            torch.randn(units, inputs, 3, 3, generator=generator) * lengths,
            torch.rand(units, 1, 1, 1, generator=generator) + 0.5,
            torch.randn(units, generator=generator),
        )

    fan_in = inputs * 9
    moved = batch * side**2 * (inputs + units) + units * (fan_in + 2)
    return Case(
        name="convolution",
        axes={"units": units, "batch": batch, "side": side},
        inputs=drawn,
        variants=(
            Variant(name="line by line", role="naive", call=convolved(line_by_line)),
            Variant(
                name="torch _weight_norm",
                role="strong",
                call=convolved(lambda v, g: torch._weight_norm(v, g, 0)),
            ),
            Variant(name="one scale a unit", role="paper", call=convolved(weight_norm)),
        ),
        cost=Cost.products(2 * batch * side**2 * units * fan_in, moved * itemsize),
    )
