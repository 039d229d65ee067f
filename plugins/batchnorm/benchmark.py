"""Times batch normalisation: line by line, torch's, and ours with a hand-written gradient."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import batch_norm, line_by_line


def cost(shape: tuple[int, ...], itemsize: int) -> dict[str, Cost]:
    """FLOPs and bytes for an x of `shape`. Vectors with one value per feature are not counted."""
    values = math.prod(shape)
    # Operations per value. Forward: mean 1, centre 1, variance 2, divide 1, scale and shift 2. Backward: bias
    # 1, weight 2, through scale 1, two means 3, sum 4. Forward reads x and writes y. Backward also reads one
    # gradient and writes another.
    return {
        "forward": Cost(flops=7 * values, bytes=2 * values * itemsize),
        "forward+backward": Cost(flops=18 * values, bytes=4 * values * itemsize),
    }


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    shapes = bench.pick(
        smoke=((8, 4), (2, 3, 4, 4)),
        quick=((1024, 512), (16, 64, 32, 32)),
        full=((4096, 256), (4096, 1024), (4096, 4096), (64, 64, 56, 56), (64, 256, 56, 56)),
    )
    for shape in shapes:
        yield case(shape, bench.dtype.itemsize)


def case(shape: tuple[int, ...], itemsize: int) -> Case:
    def inputs(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Features far from zero. The first has a small variance relative to its mean."""
        x = torch.randn(shape, generator=generator) * 3 + 2
        x[:, 0] = x[:, 0] * 0.1 + 2
        return x, torch.rand(shape[1], generator=generator) + 0.5, torch.randn(shape[1], generator=generator)

    return Case(
        name="batch norm of images" if len(shape) == 4 else "batch norm of vectors",
        axes={"features": shape[1], "shape": " × ".join(map(str, shape))},
        inputs=inputs,
        variants=(
            Variant(name="line by line", role="naive", call=line_by_line),
            Variant(
                name="torch batch_norm",
                role="strong",
                call=lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, training=True),
            ),
            Variant(
                name="one gradient",
                role="paper",
                call=lambda x, weight, bias: batch_norm(x, weight, bias, eps=1e-5)[0],
            ),
        ),
        cost=cost(shape, itemsize),
    )
