"""Times dynamic tanh as written, with scale and shift fused, and with a hand-written gradient."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import dynamic_tanh, line_by_line


def composed(x: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The authors' formula, with scale and shift fused."""
    return torch.addcmul(bias, torch.tanh(x * alpha), weight)


def cost(shape: tuple[int, ...], itemsize: int) -> dict[str, Cost]:
    """Operations per value. Forward: slope 1, tanh 1, scale and shift 2. Backward: derivative of tanh 2,
    gradient of x through scale and slope 3, gradients of slope, scale and shift 5."""
    return Cost.elementwise(math.prod(shape), itemsize=itemsize, flops=4, backward=10)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    tokens = bench.pick(smoke=4, quick=1024, full=8192)
    for features in bench.pick(smoke=(8,), quick=(256, 1024), full=(1024, 4096, 8192)):
        yield Case(
            name="dynamic tanh",
            axes={"features": features, "tokens": tokens},
            inputs=lambda generator, features=features: (
                torch.randn(tokens, features, generator=generator) * 3,
                torch.full((1,), 0.5),
                torch.rand(features, generator=generator) + 0.5,
                torch.randn(features, generator=generator),
            ),
            variants=(
                Variant(name="line by line", role="naive", call=line_by_line),
                Variant(name="torch addcmul", role="strong", call=composed),
                Variant(name="one gradient", role="paper", call=dynamic_tanh),
            ),
            cost=cost((tokens, features), bench.dtype.itemsize),
        )
