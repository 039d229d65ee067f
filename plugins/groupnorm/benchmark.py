"""Times group normalisation: line by line, torch's version, and ours, which uses our layer norm."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Variant, hookimpl

from ..batchnorm import cost
from .model import group_norm, line_by_line


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    shapes = bench.pick(
        smoke=(((2, 4, 3, 3), 2),),
        quick=(((32, 64, 16, 16), 8), ((8, 256, 28, 28), 32)),
        full=(((32, 64, 56, 56), 32), ((32, 256, 56, 56), 32), ((32, 1024, 14, 14), 32)),
    )
    for shape, groups in shapes:
        yield case(shape, groups, bench.dtype.itemsize)


def case(shape: tuple[int, ...], groups: int, itemsize: int) -> Case:
    def inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
        """Feature maps far from zero. One group of the first example has a small variance."""
        x = torch.randn(shape, generator=generator) * 3 + 2
        x[0, : shape[1] // groups] = x[0, : shape[1] // groups] * 0.1 + 2
        return x, torch.rand(shape[1], generator=generator) + 0.5, torch.randn(shape[1], generator=generator)

    return Case(
        name="group norm",
        axes={"features": shape[1], "groups": groups, "shape": " × ".join(map(str, shape))},
        inputs=inputs,
        variants=(
            Variant(
                name="line by line",
                role="naive",
                call=lambda x, weight, bias: line_by_line(x, groups, weight, bias),
            ),
            Variant(
                name="torch group_norm",
                role="strong",
                call=lambda x, weight, bias: F.group_norm(x, groups, weight, bias),
            ),
            Variant(
                name="one gradient",
                role="paper",
                call=lambda x, weight, bias: partial(group_norm, eps=1e-5)(x, groups, weight, bias),
            ),
        ),
        cost=cost(shape, itemsize),
    )
