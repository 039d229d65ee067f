"""Times instance normalisation: line by line, torch's version, and ours, which uses our batch norm."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Variant, hookimpl

from ..batchnorm import cost
from .model import instance_norm, line_by_line


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    shapes = bench.pick(
        smoke=((2, 3, 4, 4),),
        quick=((4, 32, 64, 64), (16, 64, 16, 16)),
        full=((4, 32, 256, 256), (4, 128, 64, 64), (64, 256, 16, 16)),
    )
    for shape in shapes:
        yield case(shape, bench.dtype.itemsize)


def case(shape: tuple[int, ...], itemsize: int) -> Case:
    def inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
        """Activations with a mean far from zero. The first image has little contrast."""
        x = torch.randn(shape, generator=generator) * 3 + 2
        x[0] = x[0] * 0.1 + 2
        return x, torch.rand(shape[1], generator=generator) + 0.5, torch.randn(shape[1], generator=generator)

    return Case(
        name="instance norm",
        axes={"features": shape[1], "shape": " × ".join(map(str, shape))},
        inputs=inputs,
        variants=(
            Variant(name="line by line", role="naive", call=line_by_line),
            Variant(
                name="torch instance_norm",
                role="strong",
                call=lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias),
            ),
            Variant(
                name="one gradient",
                role="paper",
                call=lambda x, weight, bias: instance_norm(x, weight, bias, eps=1e-5),
            ),
        ),
        cost=cost(shape, itemsize),
    )
